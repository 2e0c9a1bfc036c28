"""What no schema says of manifests: selectors that select, probes that lead somewhere, times that add up, settings that
the server knows.

    rules.py FILE...

The files are rendered. Prints a line for each fault, and ends with 1 if there was one. MONOCEROS_TEST_PROGRAM is the
server that is asked about settings; without it, it is not asked.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

APP = "def app(environ, start_response):\n    raise RuntimeError\n\n\ndef create_app():\n    return app\n"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def main(files):
    faults = []
    for file in files:
        documents = [one for one in yaml.safe_load_all(Path(file).read_text()) if one]
        name = Path(file).stem
        faults += [f"{name}: {fault}" for fault in faults_of(documents)]
    print("\n".join(faults))
    return bool(faults)


def faults_of(documents):
    """Every fault of what is applied together."""
    for document in documents:
        if document["kind"] in WORKLOADS:
            yield from faults_of_workload(document, documents)
        elif document["kind"] == "Service":
            yield from faults_of_selector(document, document["spec"]["selector"], documents)
            yield from faults_of_service(document, documents)
        elif document["kind"] == "PodDisruptionBudget":
            yield from faults_of_selector(document, document["spec"]["selector"]["matchLabels"], documents)
        elif document["kind"] == "PodMonitor":
            yield from faults_of_selector(document, document["spec"]["selector"]["matchLabels"], documents)
            yield from faults_of_endpoints(document, documents)
        elif document["kind"] == "NetworkPolicy":
            yield from faults_of_selector(document, document["spec"]["podSelector"]["matchLabels"], documents)
            yield from faults_of_policy(document, documents)
        elif document["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            yield from faults_of_autoscaler(document, documents)
        elif document["kind"] in ("Ingress", "HTTPRoute"):
            yield from faults_of_route(document, documents)


def faults_of_workload(document, documents):
    name = title(document)
    template = document["spec"]["template"]
    pod = template["spec"]
    labels = template["metadata"]["labels"]
    selector = document["spec"].get("selector", {}).get("matchLabels", {})
    if not selector.items() <= labels.items():
        yield f"{name}: the selector {selector} does not select its own pods, {labels}"
    elif selector:
        yield from faults_of_selector(document, selector, documents)
    for spread in pod.get("topologySpreadConstraints", []):
        if workloads_of(spread["labelSelector"]["matchLabels"], documents) != [document]:
            yield f"{name}: a topology spread counts other pods"
    for container in pod["containers"]:
        yield from faults_of_container(name, pod, container)
    mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    if mounted != volumes:
        yield f"{name}: volumes {volumes}, mounted {mounted}"
    for volume in pod.get("volumes", []):
        if "configMap" in volume and not find(documents, "ConfigMap", volume["configMap"]["name"]):
            yield f"{name}: there is no config map {volume['configMap']['name']}"
    if pod.get("automountServiceAccountToken", True):
        yield f"{name}: the pod has a token for the cluster"
    account = pod.get("serviceAccountName")
    if account and not find(documents, "ServiceAccount", account):
        yield f"{name}: there is no service account {account}"
    if document["kind"] == "Deployment":
        yield from faults_of_times(name, document, pod, documents)
        yield from faults_of_settings(name, pod, documents)


def faults_of_container(name, pod, container):
    user = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    if not isinstance(user.get("runAsUser"), int) or user["runAsUser"] == 0:
        yield f"{name}: the user is to be a number, and not root's"
    if user.get("allowPrivilegeEscalation") is not False or not user.get("readOnlyRootFilesystem"):
        yield f"{name}: may write to its root, or gain privileges"
    if user.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{name}: keeps capabilities"
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    if not requests.get("cpu") or requests.get("memory") != limits.get("memory"):
        yield f"{name}: asks for no processor, or its memory is not limited to what it asks for"
    ports = {port["name"] for port in container.get("ports", [])}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        if probe and probe["httpGet"]["port"] not in ports:
            yield f"{name}: {kind} asks port {probe['httpGet']['port']}, and there are {ports}"
    writes_tmp = any(mount["mountPath"] == "/tmp" for mount in container.get("volumeMounts", []))
    has_tmp = any("emptyDir" in volume and volume["emptyDir"].get("sizeLimit") for volume in pod.get("volumes", []))
    if container["name"] in ("app", "migrate", "hook") and not (writes_tmp and has_tmp):
        yield f"{name}: the root is read-only, and /tmp is no volume with a limit"


def faults_of_times(name, document, pod, documents):
    settings = settings_of(pod, documents)
    container = pod["containers"][0]
    delay, patience = settings.get("shutdown_delay", 0), settings.get("graceful_timeout", 30)
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if grace <= delay + patience + 5:
        yield f"{name}: {grace} s of grace, for {delay} s of shutdown_delay, {patience} s of graceful_timeout and 5"
    if container.get("lifecycle", {}).get("preStop"):
        yield f"{name}: preStop and shutdown_delay do the same work"
    if delay < 4:
        yield f"{name}: shutdown_delay {delay} is less than what proxies take to hear of the end"
    strategy = document["spec"].get("strategy", {}).get("rollingUpdate", {})
    if strategy.get("maxUnavailable") != 0:
        yield f"{name}: a rollout takes pods away before new ones serve"
    probe = container["readinessProbe"]
    if probe["httpGet"]["path"] == settings.get("health_path"):
        failing = probe["periodSeconds"] * probe["failureThreshold"]
        if failing <= delay:
            yield f"{name}: health_path fails from TERM on, and after {failing} s the pod is no endpoint of last resort"
    paths = {settings.get("health_path"), settings.get("live_path")}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[kind]["httpGet"]["path"]
        if path not in paths:
            yield f"{name}: {kind} asks {path}, which the server does not answer by itself"
    liveness = container["livenessProbe"]
    if liveness["periodSeconds"] * liveness["failureThreshold"] <= grace:
        yield f"{name}: the liveness probe may end a server that is stopping"
    addresses = settings.get("bind", [])
    addresses = [addresses] if isinstance(addresses, str) else addresses
    addresses = [*addresses, *filter(None, [settings.get("metrics_bind")])]
    bound = {int(address.rsplit(":", 1)[1]) for address in addresses}
    ports = {port["containerPort"] for port in container["ports"]}
    if bound != ports:
        yield f"{name}: listens at {bound}, and the container's ports are {ports}"


def faults_of_settings(name, pod, documents):
    """The server itself says whether it knows the settings, the flags and the values."""
    program = os.environ.get("MONOCEROS_TEST_PROGRAM")
    if not program:
        return
    container = pod["containers"][0]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        Path(folder, "monoceros.toml").write_text(config_text(pod, documents))
        arguments = [word.replace("/etc/monoceros", folder) for word in container["args"]]
        environment = {one["name"]: one.get("value", "2") for one in container.get("env", [])}
        command = [program, "--check-config", *arguments]
        # What an app has in its environment is nothing to the server, and may not be there.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if said.returncode or said.stderr:
        yield f"{name}: monoceros --check-config: status {said.returncode}: {said.stderr.strip()}"


def faults_of_selector(document, selector, documents):
    count = len(workloads_of(selector, documents))
    if count != 1:
        yield f"{title(document)}: its selector {selector} selects the pods of {count} workloads"


def workloads_of(selector, documents):
    """The workloads whose pods a selector selects."""
    workloads = [one for one in documents if one["kind"] in WORKLOADS]
    return [one for one in workloads if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()]


def faults_of_service(document, documents):
    ports = port_names(documents)
    for port in document["spec"]["ports"]:
        if port["targetPort"] not in ports:
            yield f"{title(document)}: there is no port {port['targetPort']!r} among {ports}"


def faults_of_endpoints(document, documents):
    for endpoint in document["spec"]["podMetricsEndpoints"]:
        if endpoint["port"] not in port_names(documents):
            yield f"{title(document)}: there is no port {endpoint['port']!r}"


def faults_of_policy(document, documents):
    for rule in document["spec"].get("ingress", []):
        for port in rule.get("ports", []):
            if port["port"] not in port_names(documents):
                yield f"{title(document)}: there is no port {port['port']!r}"


def faults_of_autoscaler(document, documents):
    target = document["spec"]["scaleTargetRef"]
    scaled = find(documents, target.get("kind", "Deployment"), target["name"])
    if not scaled:
        yield f"{title(document)}: there is no {target['name']}"
    elif "replicas" in scaled["spec"]:
        yield f"{title(document)}: the manifest sets the number of pods, too, and each apply undoes the autoscaler's"


def faults_of_route(document, documents):
    text = yaml.safe_dump(document["spec"])
    services = {one["metadata"]["name"] for one in documents if one["kind"] == "Service"}
    if document["kind"] == "HTTPRoute":
        named = {backend["name"] for rule in document["spec"]["rules"] for backend in rule["backendRefs"]}
    else:
        named = set(re.findall(r"service:\s+name: (\S+)", text))
    if not named or not named <= services:
        yield f"{title(document)}: leads to {named}, and there are {services}"


def settings_of(pod, documents):
    """The settings of the config file but for tables. The rest is TOML of the plainest kind, which YAML reads."""
    settings = {}
    for line in config_text(pod, documents).splitlines():
        found = re.match(r"(\w+) = ([^{].*)", line)
        if found:
            settings[found.group(1)] = yaml.safe_load(found.group(2))
    return settings


def config_text(pod, documents):
    for volume in pod.get("volumes", []):
        found = "configMap" in volume and find(documents, "ConfigMap", volume["configMap"]["name"])
        if found:
            return found["data"]["monoceros.toml"]
    return ""


def port_names(documents):
    workloads = [one for one in documents if one["kind"] in WORKLOADS]
    containers = [container for one in workloads for container in one["spec"]["template"]["spec"]["containers"]]
    return {port["name"] for container in containers for port in container.get("ports", [])}


def find(documents, kind, name):
    fitting = (one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name)
    return next(fitting, None)


def title(document):
    return f"{document['kind']} {document['metadata']['name']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
