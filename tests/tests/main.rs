//! The whole-system tests, one topic a file. What they stand on is in `tests/src`.

mod the_lab_is_what_it_says;

/// Before anything else runs, while there is one thread: a user namespace, in which networks can be made without root.
#[ctor::ctor(unsafe)]
fn enter_user_namespace() {
    unsafe { patchbay::init_userns_for_ctor() }
}
