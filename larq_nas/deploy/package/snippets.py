"""Programs that run a flatbuffer: in C++, and on Android."""

from larq_nas.deploy.package.facts import Facts, engine_version
from larq_nas.deploy.package.texts import fill
from larq_nas.deploy.parity import KERNELS, Kernel

__all__ = ["android", "cpp", "flags"]

_OPTIONS = ("use_reference_bconv", "use_indirect_bgemm")


def flags(kernel: Kernel) -> str:
    """Return the flags that `lce_benchmark_model` needs for a kernel; empty for the default."""
    return "".join(f" --{option}=true" for option in KERNELS[kernel])


def cpp(facts: Facts) -> str:
    """Return a C++ program that runs the model on one image."""
    return fill("main.cc", **_ends(facts), kernel=facts.kernel, **_arguments(facts.kernel))


def android(facts: Facts) -> str:
    """Return a Java class that runs the model on Android."""
    registration = "compute_engine::tflite::RegisterLCECustomOps(resolver);"
    if facts.kernel == "default":
        advice = "Nothing needs to be changed there: that is the kernel this package was made for."
        return fill("Network.java", **_ends(facts), registration=registration, advice=advice)
    values = ", ".join(_arguments(facts.kernel).values())
    advice = (
        f"This package was made for the {facts.kernel} kernel. Before building, write there:\n"
        "//\n"
        f"//   compute_engine::tflite::RegisterLCECustomOps(resolver, {values});"
    )
    return fill("Network.java", **_ends(facts), registration=registration, advice=advice)


def _ends(facts: Facts) -> dict[str, object]:
    return {
        "name": facts.model.name,
        "shape": " x ".join(map(str, facts.shape)),
        "inputs": facts.inputs,
        "outputs": facts.outputs,
        "meaning": facts.meaning,
        "engine": engine_version(),
    }


def _arguments(kernel: Kernel) -> dict[str, str]:
    return {option: str(option in KERNELS[kernel]).lower() for option in _OPTIONS}
