//! Names and the environment, as a caller or a user gives them. A device name opens a device of
//! that name or is refused in words, and nothing falls back to another device. What other variables
//! say changes which devices there are, and never crashes. Streams, events and devices show the
//! names that they are given.
#![no_main]

use std::sync::LazyLock;

use fencepost::{Backend, Device, Error, Event};
use libfuzzer_sys::fuzz_target;

/// What the library reads of the environment, beside `FENCEPOST_DEVICE` and what names libraries,
/// which this program leaves as they are.
const VARIABLES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "FENCEPOST_VULKAN_VALIDATION"];

static HOST: LazyLock<Device> = LazyLock::new(|| Device::new_host(1));

/// The backends that are listed before any variable is set: each once, whatever is set later.
static BACKENDS: LazyLock<Vec<Backend>> = LazyLock::new(backends);

fn backends() -> Vec<Backend> {
    Device::list().iter().map(|found| found.backend).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let name = String::from_utf8_lossy(bytes);
    devices(&name);
    names(&name);
});

fn devices(name: &str) {
    if !name.contains('\0') {
        let before = &*BACKENDS;
        // The first byte chooses one of them, the rest is its value.
        let which = usize::from(name.as_bytes().first().copied().unwrap_or(0));
        let value = name.get(1..).unwrap_or("");
        // SAFETY: this program has no other thread that reads the environment now.
        unsafe { std::env::set_var(VARIABLES[which % VARIABLES.len()], value) };
        assert_eq!(&backends(), before, "one entry for each backend");
    }
    let opened = Device::open(name);
    match &opened {
        Ok(device) => assert!(
            device.to_string().contains(name.trim()),
            "{name:?} opened {device}"
        ),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            if let Error::UnknownDevice { name: told, .. } = error {
                assert_eq!(told, name);
            }
        }
    }
    if !name.is_empty() && !name.contains('\0') {
        // SAFETY: as above.
        unsafe { std::env::set_var("FENCEPOST_DEVICE", name) };
        let named = Device::open_best();
        let shown = |result: Result<Device, Error>| match result {
            Ok(device) => Ok(device.to_string()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(shown(named), shown(opened));
    }
}

/// A name is kept as it is, and stands in quotes in texts. The empty one is none.
fn names(name: &str) {
    let kept = (!name.is_empty()).then(|| name.to_owned());
    let shown = |text: String| name.is_empty() || text.contains(&format!("{name:?}"));
    let stream = HOST.new_stream().expect("the host has streams");
    stream.set_name(name);
    assert_eq!(stream.name(), kept);
    assert!(shown(stream.to_string()), "{stream}");
    let event = Event::new(&HOST);
    event.set_name(name);
    assert_eq!(event.name(), kept);
    assert!(shown(format!("{event:?}")), "{event:?}");
    HOST.set_label(name);
    assert_eq!(HOST.label(), kept);
    assert!(shown(format!("{:?}", *HOST)), "{:?}", *HOST);
}
