"""The card of a model: what it is, what it costs, and what was checked."""

import sys
from collections.abc import Iterable, Sequence
from importlib import metadata

import tensorflow as tf

from larq_nas.cost.profile import size
from larq_nas.deploy.golden import Tensor
from larq_nas.deploy.meaning import Meaning
from larq_nas.deploy.package.facts import (
    Facts,
    affine,
    byte_meaning,
    engine_version,
    number,
    preprocessing,
    tensor_name,
    value_range,
)
from larq_nas.deploy.package.programs import fill, flags
from larq_nas.deploy.package.standalone import STANDALONE
from larq_nas.deploy.parity import Parity, kernel_lines
from larq_nas.graph.calls import read_graph


def card(facts: Facts, standalone: bool) -> str:
    """Return the model's card as Markdown; what is not known is said to be so."""
    from larq_nas import __version__

    names = ", ".join(f"`{name}`" for name in STANDALONE)
    rows = f"| {names} | the network in Keras and Larq alone, and its weights |\n"
    return fill(
        "README.md",
        name=facts.model.name,
        larq_nas=__version__,
        bytes=f"{len(facts.conversion.flatbuffer):,}",
        standalone=rows if standalone else "",
        ends=_ends(facts),
        accuracy=_accuracy(facts),
        costs=_costs(facts),
        precision=_precision(facts),
        kernels=_kernels(facts),
        reference="TensorFlow's fake-quant in int8" if facts.conversion.int8 else "Keras",
        parity="\n".join(f"- {line}" for line in kernel_lines(facts.conversion.parity, _rounding)),
        flags=flags(facts.kernel),
        golden=_golden(facts),
        latency=_latency(facts),
        architecture=_architecture(facts),
        versions=_versions(),
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _ends(facts: Facts) -> str:
    lines = [_input(facts, *pair) for pair in facts.inputs]
    within = _preprocessing_layers(facts.model)
    lines.append(f"- {preprocessing(facts)}.")
    if within:
        lines.append(f"- Within the network, so not to be done before: {', '.join(within)}.")
    for tensor, meaning in facts.outputs:
        shape = ", ".join(map(str, tensor.shape))
        lines.append(
            f"- Output {tensor_name(meaning.name, tensor)}: {tensor.type.lower()}, shape "
            f"({shape}): {meaning.text}{_counted(tensor)}."
        )
        if meaning.names:
            lines.append(f"- {_classes(meaning)}")
    return "\n".join(lines)


def _input(facts: Facts, tensor: Tensor, name: str) -> str:
    image = len(tensor.shape) == 4
    shape = ", ".join(map(str, tensor.shape))
    kind = f"{'one image, ' if image else ''}{tensor.type.lower()}, shape ({shape})"
    kind += ", channels last" if image else ""
    parts = [kind, byte_meaning(facts, tensor), value_range(facts, tensor, name)]
    return f"- Input {tensor_name(name, tensor)}: {'; '.join(filter(None, parts))}."


def _counted(tensor: Tensor) -> str:
    if not tensor.scale:
        return ""
    step = f"(v - {tensor.zero_point})".replace("- -", "+ ") if tensor.zero_point else "v"
    return f"; a value v stands for {step} * {tensor.scale:g}"


def _classes(meaning: Meaning) -> str:
    if meaning.channels == 1 and len(meaning.names) == 2:
        low, high = meaning.names
        return f"Below 0.5 it is {low}, from there on {high}."
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(meaning.names))
    return f"Classes of `{meaning.name}`: {listed}."


def _preprocessing_layers(model: tf.keras.Model) -> list[str]:
    """Return the preprocessing layers of a model, as one would write them."""
    found = []
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.Rescaling):
            text = affine("x", layer.scale, layer.offset)
        elif isinstance(layer, tf.keras.layers.Normalization):
            text = f"(x - {number(layer.mean)}) / sqrt({number(layer.variance)})"
        elif isinstance(layer, tf.keras.layers.Resizing | tf.keras.layers.CenterCrop):
            text = f"to {layer.height} x {layer.width}"
        else:
            continue
        found.append(f"{type(layer).__name__} `{layer.name}` ({text})")
    return found


def _golden(facts: Facts) -> str:
    golden = facts.golden
    text = (
        f"`golden.bin` holds {golden.origin} on these; {golden.needed} of the {golden.examples} "
        "must be as expected on a device."
    )
    if golden.steady < golden.examples:
        text += (
            f" Rounding alone changes the outputs of {golden.examples - golden.steady} of them "
            "visibly: these may differ by three times as much."
        )
    if golden.weak:
        text += (
            " For most of them that is more than outputs vary from input to input: for this "
            "network the golden test proves little."
        )
    return text


def _costs(facts: Facts) -> str:
    costs = facts.profile
    memory = costs.activation_bytes + len(facts.conversion.flatbuffer)
    rows: list[tuple[str, str]] = [
        ("real multiply-accumulates", f"{costs.macs:,}"),
        ("binary multiply-accumulates", f"{costs.binary_macs:,}"),
        ("of these run in binary", f"{costs.deployed_binary_macs:,}"),
        *((f"{bits}-bit weights", f"{count:,}") for bits, count in costs.parameters.items()),
        ("`model.tflite`", f"{len(facts.conversion.flatbuffer):,} bytes"),
        ("activations alive at once", f"{costs.activation_bytes:,} bytes (predicted)"),
        ("peak memory", f"{memory:,} bytes (predicted)"),
        ("operations", f"{sum(facts.conversion.audit.operations.values()):,}"),
    ]
    text = table(("cost", "value"), rows)
    text += (
        "\n\nPeak memory is the model, which is read in place, and the activations alive at once; "
        "not the engine itself, nor what its kernels set aside for their work."
    )
    if costs.unknown:
        listed = "; ".join(not_counted(facts.model, costs.unknown))
        text += f"\n\nNot counted, so that these are the least: {listed}."
    return text


def not_counted(model: tf.keras.Model, owners: Sequence[str]) -> list[str]:
    """Return what is not counted in each of `owners`: a function, a layer, or the layers in it."""
    lines = []
    for call in read_graph(model):
        if call.owner != call.name and call.owner in owners and call.facts.kind == "unknown":
            lines.append(f"`tf.{call.layer.symbol}` in `{call.owner}`")
        elif call.name in owners:
            layers = call.layer._flatten_layers(include_self=False)
            leaves = [one for one in layers if not list(one._flatten_layers(include_self=False))]
            inner = [f"`{one.name}`" for one in leaves if one.weights]
            within = f" (its call cannot be followed), with its layers {', '.join(inner)}"
            lines.append(f"`{call.name}`{within if inner else ''}")
    return list(dict.fromkeys(lines))


def _precision(facts: Facts) -> str:
    audit = facts.conversion.audit
    binary = [row for row in audit.layers if row.binary and not row.cause]
    named = {layer.name: layer for layer in facts.model._flatten_layers()}
    rows = [
        (f"`{row.layer}`", row.runs_as, row.cause or cause_of_real(named.get(row.layer)))
        for row in audit.layers
        if row not in binary
    ]
    text = (
        f"{len(binary)} of {len(audit.layers)} convolutions and dense layers run in binary, as "
        "`LceBconv2d`."
    )
    if rows:
        text += f" The others:\n\n{table(('layer', 'runs as', 'why'), rows)}"
    counts = ", ".join(f"{kind} {count}" for kind, count in audit.operations.items())
    return f"{text}\n\nOperations: {counts}."


def cause_of_real(layer: tf.keras.layers.Layer | None) -> str:
    """Return why a layer is not binary by definition; `None` stands for a part of one."""
    names = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
    weights = any(getattr(layer, name, None) for name in names)
    if weights and getattr(layer, "input_quantizer", None):
        return "quantized to more than 1 bit"
    return "reads real numbers" if weights else "has real weights"


def _kernels(facts: Facts) -> str:
    compared = facts.conversion.kernels
    rows = []
    for kernel, runs in facts.runs.items():
        state = "compared with Keras" if kernel in compared else "runs it; not compared with Keras"
        flag = f"`{flags(kernel).strip()}`" if flags(kernel) else "none"
        rows.append((kernel, state, flag) if runs else (kernel, "refuses it", ""))
    text = table(("kernel", "this model", "flags of `lce_benchmark_model`"), rows)
    lines = [f"`main.cc` and `Network.java` are for the {facts.kernel} kernel."]
    if not facts.runs["default"]:
        lines.append(
            "The default kernel refuses the model, as it does all grouped binary convolutions: "
            f"a device needs `{flags(facts.kernel).strip()}`."
        )
    return f"{text}\n\n{' '.join(lines)}"


def _accuracy(facts: Facts) -> str:
    text = str(facts.accuracy or "Not measured.").strip()
    if facts.accuracy and facts.accuracy.classes:
        shares = facts.accuracy.classes.items()
        rows = [(name, "no images" if share is None else f"{share:.2%}") for name, share in shares]
        text += f"\n\n{table(('class', 'accuracy'), rows)}"
    if facts.conversion.int8 is None:
        return text
    measured = "\n".join(f"- {line}" for line in str(facts.conversion.int8).splitlines())
    return f"Of the network in float, before int8: {text}\n\nOf `model.tflite`:\n\n{measured}"


def _rounding(result: Parity) -> str:
    if result.rounding is None:
        return ""
    text = f"; weights changed by 1e-6 of their value leave {result.rounding.exact:.1%} exact"
    if result.rounding.agreement is not None:
        text += f" and {result.rounding.agreement:.1%} of the same class"
    return f"{text} in Keras itself"


def _latency(facts: Facts) -> str:
    if not facts.latencies:
        return "Latency: not measured."
    rows = [
        (
            latency.device,
            latency.kernel,
            latency.threads,
            f"{latency.milliseconds:.3g} ms",
            f"{latency.spread:.0%} over {latency.runs:,} runs",
            "; ".join(latency.warnings),
        )
        for latency in facts.latencies
    ]
    return table(("device", "kernel", "threads", "median", "between quartiles", "doubts"), rows)


def _architecture(facts: Facts) -> str:
    if facts.architecture:
        return f"```json\n{facts.architecture.to_json()}```"
    rows = [
        (f"`{row.name}`", row.kind, "x".join(map(str, row.shape)), size(row.weight_bytes))
        for row in facts.profile.layers
    ]
    return table(("layer", "kind", "output", "weights"), rows)


def _versions() -> str:
    from larq_nas import __version__

    rows = [
        ("larq_nas", __version__),
        ("TensorFlow", tf.__version__),
        ("Larq", metadata.version("larq")),
        ("Larq Compute Engine", engine_version()),
        ("Python", ".".join(map(str, sys.version_info[:3]))),
    ]
    return table(("package", "version"), rows)
