"""Programs that run a flatbuffer, in C++ and for Android."""

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from string import Template

from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.deploy.package.facts import (
    Facts,
    byte_meaning,
    engine_version,
    layout,
    preprocessing,
    tensor_name,
    value_range,
)

_FOLDER = Path(__file__).parent / "templates"


def fill(template: str, **values: object) -> str:
    """Return the text of a template with `$name` replaced by each value."""
    text = (_FOLDER / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)


_WIDTH = 100
_OPTIONS = ("use_reference_bconv", "use_indirect_bgemm")
_JAVA_TYPES = {"FLOAT32": "f", "UINT8": "u", "INT8": "s", "INT32": "i", "INT64": "l", "BOOL": "b"}


def flags(kernel: Kernel) -> str:
    """Return the flags that `lce_benchmark_model` needs for a kernel; empty for the default."""
    return "".join(f" --{option}=true" for option in KERNELS[kernel])


def cpp(facts: Facts) -> str:
    """Return a C++ program that runs the model, or its golden test."""
    names, outputs = [], []
    for index, (tensor, meaning) in enumerate(facts.outputs):
        if meaning.names:
            listed = "\n".join(f"    {_cpp_text(name)}," for name in meaning.names)
            names.append(f"const char* const kNames{index}[] = {{\n{listed}\n}};\n")
        kind = f"k{meaning.kind.capitalize()}"
        known = f"kNames{index}" if meaning.names else "nullptr"
        size = f"{tensor.elements}, {meaning.channels}"
        outputs.append(f"    // {_ascii(tensor_name(meaning.name, tensor))}: {meaning.text}")
        outputs.append(f"    {{{_cpp_text(meaning.name)}, {kind}, {size}, {known}}},")
    several = len(facts.inputs) > 1
    files = [f"input{index if several else ''}.bin" for index in range(len(facts.inputs))]
    reading = [f"{file}: {line}" for file, line in zip(files, _inputs_in_words(facts), strict=True)]
    return fill(
        "main.cc",
        name=_ascii(facts.model.name),
        engine=engine_version(),
        kernel=facts.kernel,
        files=" ".join(files),
        reading=_commented([*reading, f"{preprocessing(facts)}."], "//   "),
        names="".join(f"{text}\n" for text in names),
        outputs="\n".join(outputs),
        **_arguments(facts.kernel),
    )


def android(facts: Facts) -> str:
    """Return a Java class that runs the model on Android, or its golden test."""
    registration = "compute_engine::tflite::RegisterLCECustomOps(resolver);"
    advice = "Nothing needs to be changed there: that is the kernel this package was made for."
    if facts.kernel != "default":
        values = ", ".join(_arguments(facts.kernel).values())
        advice = (
            f"This package was made for the {facts.kernel} kernel. Before building, write there:\n"
            "//\n"
            f"//   compute_engine::tflite::RegisterLCECustomOps(resolver, {values});"
        )
    ins = [tensor for tensor, _ in facts.inputs]
    outs = [tensor for tensor, _ in facts.outputs]
    meanings = [meaning for _, meaning in facts.outputs]
    names = [f"{{{_listed(map(json.dumps, meaning.names))}}}" for meaning in meanings]
    return fill(
        "Network.java",
        name=_ascii(facts.model.name),
        engine=engine_version(),
        registration=registration,
        advice=advice,
        inputs=_listed(tensor.elements for tensor in ins),
        inputs_in_words=_bullets([*_inputs_in_words(facts), f"{preprocessing(facts)}."]),
        input_types=_listed(f"'{_JAVA_TYPES[tensor.type]}'" for tensor in ins),
        outputs=_listed(tensor.elements for tensor in outs),
        outputs_in_words=_bullets(
            f"{tensor_name(meaning.name, tensor)}: {meaning.text}."
            for tensor, meaning in facts.outputs
        ),
        output_names=_listed(json.dumps(meaning.name) for meaning in meanings),
        output_types=_listed(f"'{_JAVA_TYPES[tensor.type]}'" for tensor in outs),
        kinds=_listed(f"Kind.{meaning.kind.upper()}" for meaning in meanings),
        channels=_listed(meaning.channels for meaning in meanings),
        class_names=_listed(names),
        scales=_listed(f"{tensor.scale!r}f" for tensor in outs),
        zero_points=_listed(tensor.zero_point for tensor in outs),
    )


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _inputs_in_words(facts: Facts) -> list[str]:
    """Return for each input its name, its numbers, and what they are."""
    lines = []
    for tensor, name in facts.inputs:
        parts = [layout(tensor), byte_meaning(facts, tensor), value_range(facts, tensor, name)]
        lines.append(f"{tensor_name(name, tensor)}, {'; '.join(filter(None, parts))}.")
    return lines


def _bullets(texts: Iterable[str]) -> str:
    """Return lines of a Java comment, in which neither its end nor an escape may stand."""
    return _commented([text.replace("*/", "* /") for text in texts], "   * - ", "   *   ")


def _commented(texts: Iterable[str], first: str, further: str | None = None) -> str:
    """Return texts as lines of a comment, each with what lines of it begin with."""
    further = f"{first}  " if further is None else further
    return "\n".join(
        textwrap.fill(
            _ascii(text),
            _WIDTH,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for text in texts
    )


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")


def _cpp_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments(kernel: Kernel) -> dict[str, str]:
    return {option: str(option in KERNELS[kernel]).lower() for option in _OPTIONS}
