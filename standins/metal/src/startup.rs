//! The registration of all classes.

use crate::{
    buffer, command_buffer, device, dispatch, encoder, event, foundation, library, queue, runtime,
};

// A program names a class by a symbol, not by a call that could make the class first. So all
// classes are made before main, while there is one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    foundation::register_root();
    runtime::register_blocks();
    foundation::register();
    dispatch::register();
    library::register();
    buffer::register();
    event::register();
    device::register();
    queue::register();
    command_buffer::register();
    encoder::register();
}
