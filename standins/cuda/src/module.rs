//! Modules and functions.

use crate::context::Context;
use crate::kernel::KernelName;
use crate::types::CUmodule;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: Arc<Context>,
}

#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) module: CUmodule,
    pub(crate) name: KernelName,
}
