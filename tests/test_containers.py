"""The images, built as users do and run without a network: make test-containers.

Only the base image is another one: made here by debootstrap, as no registry is asked. It and the
wheel of torch are kept in the cache folder. Printed at the end: sizes and times.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY, write_dataset

pytestmark = pytest.mark.containers
ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lisbet-containers"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE, IMAGE = "localhost/lisbet-base:test", "localhost/lisbet:test"
TORCH = os.environ.get("TORCH", "torch==2.13.0")
LINE = ["train_model", *TINY, "--run_id=a", "--resume", "data"]
MEASURED: list[tuple[str, float, float]] = []


def sh(*words: object, **more) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          check=False, **more)  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("\n\n| image | size, MB | built in, s |\n|---|---|---|")
    for name, size, seconds in MEASURED:
        print(f"| {name} | {size / 1e6:,.0f} | {seconds:.0f} |")


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> dict[str, str]:
    """Images of these tests alone, removed with them."""
    needs = ("buildah", "podman", "runc", "debootstrap")
    if lacking := [name for name in needs if not shutil.which(name)]:
        pytest.skip(f"{', '.join(lacking)} missing: apt-get install {' '.join(needs)}")
    if os.geteuid():
        pytest.skip("debootstrap needs root")
    place = tmp_path_factory.mktemp("storage")
    (place / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/images"\nrunroot = "{place}/run"\n'
    )
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(place / "storage.conf")}
    yield environment
    subprocess.run(["buildah", "rm", "--all"], env=environment, capture_output=True, check=False)
    subprocess.run(["buildah", "rmi", "--all", "--force"], env=environment, capture_output=True,
                   check=False)  # fmt: skip


@pytest.fixture(scope="module")
def base(storage) -> Path:
    """A base image in the storage, and the file that it is kept in."""
    archive = CACHE / "base.tar"
    if not archive.exists():
        root = CACHE / "rootfs"
        shutil.rmtree(root, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            ["debootstrap", "--variant=minbase",
             "--include=python3,python3-venv,python3-pip,ca-certificates", "bookworm", root],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"debootstrap: {made.stdout[-500:]}{made.stderr[-500:]}")
        for device in (root / "dev").iterdir():
            shutil.rmtree(
                device
            ) if device.is_dir() and not device.is_symlink() else device.unlink()
        container = sh("buildah", "from", "scratch", env=storage).strip()
        sh("buildah", "add", "-q", container, root, "/", env=storage)
        sh("buildah", "commit", "-q", container, BASE, env=storage)
        sh("buildah", "rm", container, env=storage)
        sh("buildah", "push", "-q", BASE, f"oci-archive:{archive}:latest", env=storage)
        shutil.rmtree(root)
    else:
        sh("buildah", "pull", "-q", f"oci-archive:{archive}", env=storage)
        name = sh("buildah", "images", "--format", "{{.ID}}", env=storage).split()[0]
        sh("buildah", "tag", name, BASE, env=storage)
    return archive


@pytest.fixture(scope="module")
def torch_wheel() -> Path:
    """The build of torch that this machine's pip takes."""
    wheels = CACHE / "wheels"
    found = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         "--python-version=3.11", "--dest", wheels, TORCH],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        pytest.skip(f"no wheel of {TORCH}: {found.stderr[-500:]}")
    return max(wheels.glob("torch-*.whl"), key=lambda path: path.stat().st_mtime)


def betman_in(image: str, place: Path, storage: dict[str, str], *words: str, entry: str = "betman"):
    """Run as a stranger to the image, who may write nowhere in it."""
    return sh(
        "podman", "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit",
        "nproc=1024:1024", "--network", "none", "--user", "12345:12345", "--read-only",
        "--tmpfs", "/tmp", "--volume", f"{place}:/work", "--entrypoint", entry, image, *words,
        env=storage,
    )  # fmt: skip


def make_place(folder: Path) -> Path:
    write_dataset(folder / "data", [60, 80, 50, 50])
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    return folder


def test_docker(base, torch_wheel, storage, tmp_path):
    started = time.monotonic()
    sh("buildah", "bud", "--isolation", "chroot", "-f", "containers/Dockerfile", "--build-arg",
       f"BASE_IMAGE={BASE}", "--build-arg", f"TORCH=/wheels/{torch_wheel.name}", "-v",
       f"{torch_wheel.parent}:/wheels:ro", "-v", f"{CERTIFICATES}:{CERTIFICATES}:ro", "-t", IMAGE,
       ".", cwd=ROOT, env=storage)  # fmt: skip
    seconds = time.monotonic() - started
    size = sh("podman", "image", "inspect", IMAGE, "--format", "{{.Size}}", env=storage)
    MEASURED.append((f"Dockerfile, {torch_wheel.name.split('-cp')[0]}", int(size), seconds))

    place = make_place(tmp_path)
    assert "usage: betman" in betman_in(IMAGE, place, storage)
    betman_in(IMAGE, place, storage, *LINE, "--epochs=1")
    said = betman_in(IMAGE, place, storage, *LINE, "--epochs=2", "-v")
    assert "model written to" in said
    betman_in(IMAGE, place, storage, "export_embedder", "models/a/model_config.yml",
              "models/a/weights/weights_last.pt")  # fmt: skip
    assert (place / "models" / "a-embedder" / "weights" / "weights_last.pt").is_file()
    betman_in(IMAGE, place, storage, "--nproc_per_node=2", "-m", "lisbet", "train_model", *TINY,
              "--epochs=1", "--run_id=b", "data", entry="torchrun")  # fmt: skip
    assert "count: 2" in (place / "models" / "b" / "run_config.yml").read_text()
    assert "usage" in betman_in(IMAGE, place, storage, "launch", "--help", entry="accelerate")


def test_apptainer(base, torch_wheel, tmp_path_factory):
    """As a user who is not root, if there is one who may (LISBET_TEST_USER)."""
    apptainer = os.environ.get("APPTAINER") or shutil.which("apptainer")
    if apptainer is None:
        pytest.skip("there is no apptainer; APPTAINER=… names one that is not on PATH")
    user = os.environ.get("LISBET_TEST_USER")
    if os.geteuid() == 0 and user is None:
        pytest.skip("apptainer builds as a user with subordinate ids: LISBET_TEST_USER names one")
    place = Path(sh("mktemp", "-d", "/var/tmp/lisbet-apptainer-XXXXXX").strip())
    try:
        shutil.copytree(ROOT / "containers", place / "src" / "containers")
        for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
            shutil.copy(ROOT / name, place / "src" / name)
        for name in ("lisbet", "launch"):
            shutil.copytree(ROOT / name, place / "src" / name)
        shutil.copy(base, place / "base.tar")
        (place / "wheels").mkdir()
        shutil.copy(torch_wheel, place / "wheels")
        (place / "tmp").mkdir()
        make_place(place / "work")
        if user:
            sh("chown", "-R", user, place)
        before = ["runuser", "-u", user, "--"] if user else []
        environment = {**os.environ, "APPTAINER_TMPDIR": str(place / "tmp"),
                       "APPTAINER_CACHEDIR": str(place / "tmp"), "HOME": str(place)}  # fmt: skip
        image = place / "lisbet.sif"
        started = time.monotonic()
        sh(*before, apptainer, "build", "--build-arg", "BOOTSTRAP=oci-archive", "--build-arg",
           f"BASE={place}/base.tar", "--build-arg", f"TORCH={place}/wheels/{torch_wheel.name}",
           "--bind", CERTIFICATES, "--bind", place / "wheels", image, "containers/lisbet.def",
           cwd=place / "src", env=environment)  # fmt: skip
        seconds = time.monotonic() - started
        MEASURED.append((f"lisbet.def, {torch_wheel.name.split('-cp')[0]}", image.stat().st_size,
                         seconds))  # fmt: skip
        # --unsquash: mounting an image takes a program for it that not every machine has.
        sh(*before, apptainer, "test", "--unsquash", image, cwd=place / "work", env=environment)
        said = sh(*before, apptainer, "run", "--unsquash", image, *LINE, "--epochs=1",
                  cwd=place / "work", env=environment)  # fmt: skip
        assert "model written to" in said
    finally:
        shutil.rmtree(place, ignore_errors=True)
