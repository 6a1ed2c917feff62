//! Instances.

use crate::table::Child;
use ash::vk;

#[derive(Debug)]
pub(crate) struct Instance {
    /// The lower of the requested and the supported version: 10 for 1.0, 12 for 1.2.
    pub(crate) version: u32,
    pub(crate) extensions: Vec<String>,
    pub(crate) physicals: Vec<vk::PhysicalDevice>,
}

impl Instance {
    pub(crate) fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|enabled| enabled == extension)
    }
}

impl Child for Instance {
    fn parent(&self) -> u64 {
        0
    }
}

pub(crate) const PORTABILITY: &str = "VK_KHR_portability_enumeration";

pub(crate) fn instance_extensions(portability: bool) -> &'static [&'static str] {
    match portability {
        true => &[PORTABILITY],
        false => &[],
    }
}
