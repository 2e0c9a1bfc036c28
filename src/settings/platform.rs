//! The address that a hosting platform tells an application to listen on, in variables of its own.

/// Cloud Foundry's older name for `PORT`; its first version had no other.
const CLOUD_FOUNDRY: &str = "VCAP_APP_PORT";

/// The address of a gear's Python cartridge: OpenShift 2, Jelastic.
const GEAR: [&str; 2] = ["OPENSHIFT_PYTHON_IP", "OPENSHIFT_PYTHON_PORT"];

/// An address in the form of `bind`, and the variable that it comes from; `None` where no platform
/// names one. An empty variable counts as not set.
pub fn address(environment: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'static str)> {
    let told = |name: &str| environment(name).filter(|text| !text.is_empty());
    if let Some(port) = told(CLOUD_FOUNDRY) {
        return Some((format!("0.0.0.0:{port}"), CLOUD_FOUNDRY));
    }
    let [ip, port] = [told(GEAR[0])?, told(GEAR[1])?];
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
    Some((format!("{ip}:{port}"), GEAR[1]))
}
