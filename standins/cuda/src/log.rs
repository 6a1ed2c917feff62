//! The log of this process's calls, failures and violations.

use crate::codes::CUresult;
use fencepost_sim::CallLog;

pub(crate) static LOG: CallLog<CUresult> = CallLog::new("CUDA");
