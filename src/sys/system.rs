//! What system this is: kernel, machine, C library.

/// `Linux 6.1.0 x86_64, glibc 2.36`
pub fn description() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}, {}", release.trim(), std::env::consts::ARCH, c_library())
}

/// The name of this host (gethostname(2)).
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(target_env = "gnu")]
fn c_library() -> String {
    // SAFETY: takes nothing, and returns a constant string of the library
    // (gnu_get_libc_version(3)).
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn c_library() -> String {
    // musl does not say its version.
    "another C library than glibc".to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_system_has_a_kernel_and_a_c_library() {
        let said = super::description();
        let (kernel, library) = said.split_once(", ").expect("two parts");
        let release = kernel.strip_prefix("Linux ").and_then(|rest| rest.split_once(' '));
        assert!(release.is_some_and(|(release, machine)| !release.is_empty() && !machine.is_empty()), "{said}");
        assert!(library.contains("libc"), "{said}");
    }
}
