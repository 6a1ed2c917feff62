//! What all who wait for a device are told once it is lost, on any backend.

use std::sync::mpsc;

use fencepost::{Device, Error, testing::work};
use fencepost_sim::HANG_TIMEOUT as PATIENCE;

/// The error is a lost device, and its first cause names all of `parts`.
pub(crate) fn is_loss(error: &Error, parts: &[&str]) {
    assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    let root = error.cause().unwrap().root();
    for part in parts {
        assert!(root.contains(part), "no \"{part}\" in: {root}");
    }
}

/// Whatever waits for work that never completes is told of `lose`, by a first cause that names all
/// of `parts`: markers, callbacks, and host streams; of a living stream, and of one that is
/// dropped.
pub(crate) fn everyone_is_told(device: &Device, lose: impl FnOnce(), parts: &[&str]) {
    let (stream, gone) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let host = Device::open("host").unwrap();
    let gates = [&stream, &gone].map(|stream| work::gate(stream).unwrap());
    let markers = [&stream, &gone].map(|stream| stream.record().unwrap());
    drop(gone);
    let (tell, told) = mpsc::channel();
    let hosts = markers.each_ref().map(|marker| {
        let tell = tell.clone();
        marker
            .on_complete(move |result| drop(tell.send(result)))
            .unwrap();
        let host = host.new_stream().unwrap();
        host.wait(marker).unwrap();
        host
    });
    lose();
    for (marker, host) in markers.iter().zip(&hosts) {
        for error in [
            told.recv_timeout(PATIENCE).unwrap().unwrap_err(),
            marker.query().unwrap_err(),
            marker.synchronize_timeout(PATIENCE).unwrap_err(),
        ] {
            is_loss(&error, parts);
        }
        let error = host.synchronize_timeout(PATIENCE).unwrap_err();
        let root = error.cause().unwrap().root();
        assert!(root.contains(parts[0]), "no \"{}\" in: {root}", parts[0]);
    }
    drop(gates);
}
