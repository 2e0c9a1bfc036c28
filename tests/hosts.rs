//! The platforms that stage applications: Cloud Foundry then and now, Cloud Native Buildpacks and
//! source-to-image, each in a simulator of its order of calls. `docs/hosts` has the chapters. The
//! long form, `scripts/hosts`, adds the databases that the system has, and what installs Django
//! once more.

use crate::util::is_root;
use crate::util::platforms::run;

#[test]
fn cloud_foundry_serves_a_bare_wsgi_module_offline_and_as_a_user_whom_nobody_knows() {
    hold("cloud_foundry.py", "hello");
}

#[test]
fn cloud_foundry_starts_what_the_procfile_calls_gunicorn() {
    hold("cloud_foundry.py", "procfile");
}

#[test]
fn cloud_foundry_adds_the_server_to_the_python_of_another_buildpack() {
    hold("cloud_foundry.py", "after_the_python_buildpack");
}

#[test]
fn cloud_foundry_migrates_a_django_project_once_and_refuses_a_release_that_fails() {
    hold("cloud_foundry.py", "guestbook");
}

#[test]
fn the_first_cloud_foundry_finds_its_droplet_and_kills_without_a_trace() {
    hold("dea.py", "hello_from_vcap");
}

#[test]
fn buildpacks_reuse_their_layers_without_the_network_and_start_with_pid_1() {
    hold("cnb.py", "two_builds");
}

#[test]
fn buildpacks_leave_what_is_no_python_application_to_others() {
    hold("cnb.py", "nothing_to_serve");
}

#[test]
fn source_to_image_starts_every_shape_of_application() {
    hold("s2i.py", "shapes");
}

#[test]
#[ignore = "makes a virtualenv for each of them, from an index"]
fn every_kind_of_requirements_is_installed() {
    hold("staging.py", "kinds");
}

#[test]
#[ignore = "installs Django's dependencies once more"]
fn the_first_cloud_foundry_migrates_at_the_start() {
    hold("dea.py", "guestbook");
}

#[test]
#[ignore = "installs Django's dependencies once more"]
fn buildpacks_build_and_release_a_django_project() {
    hold("cnb.py", "guestbook");
}

#[test]
#[ignore = "starts a PostgreSQL: apt-get install postgresql"]
fn two_instances_migrate_a_postgresql_once() {
    hold("databases.py", "postgresql");
}

#[test]
#[ignore = "starts a MariaDB: apt-get install mariadb-server"]
fn the_settings_of_2012_find_a_mariadb_and_so_do_todays() {
    hold("databases.py", "mariadb");
}

#[test]
#[ignore = "builds an image from nothing: apt-get install buildah podman runc debootstrap"]
fn an_image_runs_in_a_container_as_the_chapter_says() {
    hold("containers.py", "image");
}

/// Namespaces are root's to make.
#[track_caller]
fn hold(simulator: &str, scenario: &str) {
    if is_root() {
        run(simulator, scenario);
    } else {
        println!("skipped: the simulators of platforms need root");
    }
}
