//! Device names, as a caller or the environment gives them: each opens a device of that name or is
//! refused in words, and nothing falls back to another device.
#![no_main]

use fencepost::{Device, Error};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = String::from_utf8_lossy(bytes);
    let opened = Device::open(&name);
    match &opened {
        Ok(device) => assert!(
            device.to_string().contains(name.trim()),
            "{name:?} opened {device}"
        ),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            if let Error::UnknownDevice { name: told, .. } = error {
                assert_eq!(*told, name);
            }
        }
    }

    if !bytes.is_empty() && !bytes.contains(&0) {
        // SAFETY: this program has no other thread that reads the environment now.
        unsafe { std::env::set_var("FENCEPOST_DEVICE", name.as_ref()) };
        let named = Device::open_best();
        assert_eq!(
            named
                .map(|device| device.to_string())
                .map_err(|e| e.to_string()),
            opened
                .map(|device| device.to_string())
                .map_err(|e| e.to_string()),
        );
    }
});
