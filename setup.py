import os
import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (root / "larq_nas" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)
# `make dist REPOSITORY=https://...`: where the sources are, for the README's links on the index.
repository = os.environ.get("REPOSITORY", "").rstrip("/")


def absolute(link: re.Match[str]) -> str:
    """Return a relative link of the README as one to the repository, or its text without one."""
    image, text, target = link.groups()
    if not repository:
        return "" if image else text
    return f"{image}[{text}]({repository}/{'raw' if image else 'blob'}/main/{target})"


long_description = re.sub(
    r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)",
    absolute,
    (root / "README.md").read_text(encoding="utf-8"),
)
# TensorFlow 2.15 is the last with Keras 2 inside, and has no wheels for Python 3.12.
newer_python = [
    "tensorflow==2.19.*; python_version >= '3.12'",
    "tf-keras==2.19.*; python_version >= '3.12'",
]
datasets = [
    "tensorflow-datasets>=4.9,<4.10",
    "tensorflow-metadata<1.18",  # later ones break tensorflow-datasets under TensorFlow <= 2.19
    "importlib_resources",
]

setup(
    name="larq_nas",
    version=version,
    description="Architecture search for binary neural networks, on Keras and Larq.",
    long_description=long_description,
    long_description_content_type="text/markdown",
    author="The maintainers of larq_nas",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "binary neural networks",
        "neural architecture search",
        "larq",
        "keras",
        "tensorflow",
        "tflite",
        "raspberry pi",
    ],
    project_urls={
        "Larq": "https://docs.larq.dev",
        **(
            {"Source": repository, "Changelog": f"{repository}/blob/main/CHANGELOG.md"}
            if repository
            else {}
        ),
    },
    packages=find_packages(include=["larq_nas", "larq_nas.*"]),
    package_data={
        "larq_nas": [
            "py.typed",
            "architectures/*.json",
            "deploy/package/templates/*.txt",
            "report/template.html",
        ]
    },
    python_requires=">=3.10,<3.13",
    install_requires=[
        "altair>=5.5",
        "click>=8",
        "filelock>=3.12",
        "jinja2>=3.1",
        "keras-tuner>=1.4.8,<1.5",
        "larq>=0.14,<0.15",
        # No wheel exists for Linux on ARM: search there, convert elsewhere.
        "larq-compute-engine>=0.16,<0.17; platform_machine != 'aarch64'",
        "networkx>=3.2",
        "numpy>=1.26,<2",
        "quantiphy>=2.19",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "terminaltables>=3.1",
        "vl-convert-python>=1.7",
    ],
    extras_require={
        "tensorflow": ["tensorflow==2.15.1; python_version < '3.12'", *newer_python],
        "tensorflow-cpu": ["tensorflow-cpu==2.15.1; python_version < '3.12'", *newer_python],
        "datasets": datasets,
        "testing": ["pytest>=8"],
        "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29,<2"],
        "dev": [
            *datasets,
            "build>=1.2",
            "matplotlib>=3.7",
            "import-linter>=2",
            "ipykernel>=6",
            "mypy>=1.11",
            "nbclient>=0.10",
            "playwright>=1.40",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "twine>=6",
        ],
    },
    entry_points={"console_scripts": ["larq-nas=larq_nas.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Software Development :: Embedded Systems",
        "Typing :: Typed",
    ],
)
