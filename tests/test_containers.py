"""The container examples: manifests against the schema of Kubernetes, the image's command run.

What a node does with the pod (volumes, user, a read-only root) is done here by hand, in a root
file system of its own, as the manifest says it.
"""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

PROJECT = Path(__file__).parent.parent
EXAMPLE = PROJECT / "examples/containers"
MANIFESTS = sorted((EXAMPLE / "kubernetes").glob("*.yaml"))


def objects() -> Iterator[dict[str, Any]]:
    for manifest in MANIFESTS:
        yield from yaml.safe_load_all(manifest.read_text())


def named(kind: str, name: str) -> dict[str, Any]:
    return next(o for o in objects() if o["kind"] == kind and o["metadata"]["name"] == name)


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = named("Deployment", "site")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    "obj", list(objects()), ids=lambda o: f"{o['kind']}-{o['metadata']['name']}"
)
def test_a_manifest_is_what_kubernetes_expects(obj: dict[str, Any]) -> None:
    kubernetes_validate.validate(obj, kubernetes_validate.latest_version(), strict=True)


def test_a_mistake_in_a_manifest_would_be_found() -> None:
    wrong = named("Deployment", "site")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_what_the_manifests_refer_to_is_there() -> None:
    (container,) = pod()["containers"]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        if "configMap" in volume:
            assert named("ConfigMap", volume["configMap"]["name"])
    ports = {port["name"] for port in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["port"] in ports
    assert container["readinessProbe"]["httpGet"]["port"] in ports
    assert named("Service", "site")["spec"]["ports"][0]["targetPort"] in ports
    assert named("ServiceAccount", pod()["serviceAccountName"])
    labels = named("Deployment", "site")["spec"]["template"]["metadata"]["labels"]
    assert named("Service", "site")["spec"]["selector"].items() <= labels.items()


def test_the_drop_in_of_the_deployment_fits_the_file_of_the_image(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text((EXAMPLE / "entrypoint.toml").read_text())
    drop_in = named("ConfigMap", "site-entrypoint")["data"]["activation.toml"]
    (tmp_path / "entrypoint.toml.d").mkdir()
    (tmp_path / "entrypoint.toml.d/activation.toml").write_text(drop_in)
    (container,) = pod()["containers"]
    variables = {variable["name"]: "some-name" for variable in container["env"]}
    checked = subprocess.run(
        [sys.executable, "-m", "trio_entrypoint.cli", "check", "-f", str(file)],
        env={"PATH": os.environ["PATH"] + ":/usr/sbin", **variables},
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    how_to = (PROJECT / "docs/how-to/active-backup.md").read_text()
    assert drop_in in how_to, "the page shows another one"


def test_the_archive_in_the_config_map_is_the_site() -> None:
    archive = base64.b64decode(
        named("ConfigMap", "site")["binaryData"]["site.tar"].replace("\n", ""), validate=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        packed = {
            os.path.normpath(member.name): file.read()
            for member in tar
            if (file := tar.extractfile(member))
        }
    site = EXAMPLE / "site"
    assert packed == {
        str(path.relative_to(site)): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file()
    }


def instruction(name: str) -> str:
    text = (EXAMPLE / "Containerfile").read_text().replace("\\\n", "")
    return next(line for line in text.splitlines() if line.startswith(name)).partition(" ")[2]


DELIVER = """
deliver() {  # what the kubelet does for a ConfigMap: DIRECTORY VERSION FILE CONTENTS(base64)
    mkdir -p "$1/..$2"
    printf %s "$4" | base64 -d >"$1/..$2/$3"
    ln -s "..$2" "$1/..data_tmp"
    mv -T "$1/..data_tmp" "$1/..data"
    ln -sf "..data/$3" "$1/$3"
}
"""

KEEP = """
keep() {  # what is installed here may be where the pod has a volume, or where only root may look
    for path; do
        mkdir -p "/kept$path"
        mount --bind "$path" "/kept$path"
        while path=$(dirname "$path"); [ "$path" != / ]; do chmod o+x "$path"; done
    done
}

put_back() {
    for path; do
        [ -e "$path" ] && continue
        mkdir -p "$path"
        mount --bind "/kept$path" "$path"
    done
}
"""

CHECK = """
within_20_s() {
    for _ in $(seq 200); do "$@" && return; sleep 0.1; done
    cat /run/log >&2
    exit 1
}
says() { curl -s "$1" | grep "$2"; }
within_20_s curl -sf http://127.0.0.1:9090/readyz
curl -sf http://127.0.0.1:9090/livez
curl -s http://127.0.0.1:8080/
deliver /incoming 2 site.tar "$second"
within_20_s says http://127.0.0.1:8080/ second
kill $!
wait $! || exit
echo stopped
"""


def test_the_image_s_command_serves_the_config_map_as_the_pod_runs_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting volumes needs root")
    entrypoint = json.loads(instruction("ENTRYPOINT"))
    source, target = instruction("COPY").split()
    security = pod()["securityContext"]
    first = named("ConfigMap", "site")["binaryData"]["site.tar"].replace("\n", "")
    script = ["set -eu", DELIVER, KEEP, f"mkdir -p /opt && ln -sfn {sys.prefix} /opt/entrypoint"]
    installed = " ".join(map(str, (PROJECT, sys.prefix, sys.base_prefix)))
    script.append(f"keep {installed}")
    script.append(f"cp {EXAMPLE / source} {target}")
    (container,) = pod()["containers"]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    for mount in container["volumeMounts"]:
        path = mount["mountPath"]
        script.append(f"mkdir -p {path}")
        if "emptyDir" in volumes[mount["name"]]:
            options = f"mode=2777,gid={security['fsGroup']}"
            script.append(f"mount -t tmpfs -o {options} {mount['name']} {path}")
        elif mount["name"] == "incoming":
            script.append(f"mount -t tmpfs -o mode=755 incoming {path}")
            script.append(f"deliver {path} 1 site.tar {first}")
    script.append(f"put_back {installed}")
    script.append("mount -o remount,bind,ro /")
    user = f"--reuid={security['runAsUser']} --regid={security['runAsGroup']} --clear-groups"
    command = " ".join(entrypoint)
    script.append(f"setpriv {user} --no-new-privs --bounding-set=-all {command} 2>/run/log &")
    script.append(f"second={archive({'html/index.html': b'second'})}")
    script.append(CHECK)
    ran = subprocess.run(
        [PROJECT / "tests/container.sh", "bash", "-c", "\n".join(script)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    expected = ["ok", "ok", "<h1>It is served by the active pod</h1>", "second", "stopped"]
    assert ran.stdout.splitlines() == expected, ran.stderr


def archive(changed: dict[str, bytes]) -> str:
    site = EXAMPLE / "site"
    contents = {
        str(path.relative_to(site)): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file()
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in (contents | changed).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return base64.b64encode(packed.getvalue()).decode()
