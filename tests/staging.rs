//! scripts/stage and monoceros_env by themselves: tables of what they find, and how a release ends.

use crate::util::is_root;
use crate::util::platforms::run;

#[test]
fn the_entry_point_is_found_in_the_order_of_the_platforms() {
    run("staging.py", "finds");
}

#[test]
fn the_key_of_a_virtualenv_holds_what_decides_its_content() {
    run("staging.py", "keys");
}

#[test]
fn a_virtualenv_is_made_once_without_a_network_and_may_be_moved() {
    if !is_root() {
        return println!("skipped: only root can take the network away");
    }
    run("staging.py", "cache");
}

#[test]
fn a_release_migrates_once_and_is_refused_when_it_fails() {
    run("staging.py", "release");
}

#[test]
fn credentials_of_every_shape_become_one_url() {
    run("bindings.py", "shapes");
}

#[test]
fn credentials_are_found_in_each_platforms_place() {
    run("bindings.py", "places");
}

#[test]
fn no_password_is_shown() {
    run("bindings.py", "secrets");
}

#[test]
fn workers_are_counted_by_herokus_table() {
    run("bindings.py", "sizing");
}
