"""A small network to pack, wrong constants to plant, and the programs of a package, built."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from deploy.package.stubs import CPP, JAVA

from larq_nas.deploy.flatbuffer import read_model
from larq_nas.deploy.golden import read_golden, tensors
from larq_nas.layers import BinaryConv2D

ENGINE = f"{sys.executable} {Path(__file__).parent / 'engine_program.py'}"
layers = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
needs_java = pytest.mark.skipif(not shutil.which("javac"), reason="needs javac")


def network(*head: layers.Layer, shape=(8, 8, 3), name="golden") -> tf.keras.Model:
    """Return a network of two binary convolutions and a head."""
    inputs = x = tf.keras.Input(shape, name="picture")
    for i in range(2):
        x = BinaryConv2D(32, 3, name=f"conv{i}")(layers.Conv2D(32, 1)(x) if i == 0 else x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
    for layer in head:
        x = layer(x)
    return randomize(tf.keras.Model(inputs, x, name=name))


def classifying(classes: int = 5) -> tf.keras.Model:
    return network(layers.GlobalAveragePooling2D(), layers.Dense(classes, "softmax", name="which"))


def images(model: tf.keras.Model, seed: int = 0, count: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (count, *model.inputs[0].shape[1:])).astype("float32")


def plant(flatbuffer: bytes, kind: str, output: int = 0) -> bytes:
    """Return `flatbuffer` with one wrong constant: a sign of a kernel, or a number of a vector."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    held = [graph.tensors[i] for op in graph.operators for i in op.inputs if i >= 0]
    held = [tensor for tensor in held if model.buffers[tensor.buffer].data is not None]
    rank = {"sign": 4, "number": 1}[kind]
    chosen = [t for t in held if len(t.shape) == rank and t.type == (2 if kind == "sign" else 0)]
    data = bytes(model.buffers[chosen[output].buffer].data)
    at = flatbuffer.index(data)
    changed = bytearray(flatbuffer)
    if kind == "sign":
        changed[at] ^= 1
    else:
        value = np.frombuffer(data[:4], "<f4") * np.float32(-1.5) + np.float32(0.5)
        changed[at : at + 4] = value.tobytes()
    return bytes(changed)


def compiled(package: Path, folder: Path) -> Path:
    """Return `main.cc` of a package as a program, which asks the real engine."""
    for name, text in CPP.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    described = folder / "tensors.txt"
    ends = tensors((package / "model.tflite").read_bytes())
    described.write_text(
        "".join(
            f"{output} {end.code} {end.bytes} {end.scale!r} {end.zero_point}\n"
            for output, found in enumerate(ends)
            for end in found
        )
    )
    program = folder / "program"
    command = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", "-I", str(folder)]
    command += [f'-DSTUB_TENSORS="{described}"', f'-DSTUB_ENGINE="{ENGINE}"']
    subprocess.run([*command, str(package / "main.cc"), "-o", str(program)], check=True)
    return program


def call(*command: object, **environment: str) -> subprocess.CompletedProcess:
    words = list(map(str, command))
    variables = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=variables)


MAIN = """
public class Main {
  public static void main(String[] arguments) throws java.io.IOException {
    try (Network network = new Network(new android.content.Context());
        java.io.FileInputStream file = new java.io.FileInputStream(arguments[0])) {
      if (arguments.length > 1) {
        float[][] images = new float[arguments.length - 1][];
        for (int i = 0; i < images.length; i++) {
          byte[] bytes = java.nio.file.Files.readAllBytes(java.nio.file.Path.of(arguments[i + 1]));
          images[i] = new float[bytes.length / 4];
          java.nio.ByteBuffer.wrap(bytes).order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
              .get(images[i]);
        }
        float[][] outputs = network.run(images);
        for (int i = 0; i < outputs.length; i++) {
          System.out.println(Network.describe(i, outputs[i]));
        }
      } else {
        network.golden(file).forEach(System.out::println);
      }
    }
  }
}
"""


def java(package: Path, folder: Path) -> list[str]:
    """Return the command of a Java program that runs `Network.java` of a package."""
    for name, text in JAVA.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "Main.java").write_text(MAIN)
    shutil.copy(package / "Network.java", folder)
    command = ["javac", "-encoding", "UTF-8", "-Xlint:all", "-Werror", "-sourcepath", str(folder)]
    subprocess.run([*command, "-d", str(folder / "classes"), str(folder / "Main.java")], check=True)
    return ["java", "-Dstdout.encoding=UTF-8", "-cp", str(folder / "classes"), "Main"]


def first(count: int, path: Path) -> bytes:
    """Return a golden test of the first examples: each starts the engine anew."""
    golden = read_golden(path)
    outputs = [
        dataclasses.replace(
            output, values=output.values[:count], tolerance=output.tolerance[:count], least_same=0
        )
        for output in golden.outputs
    ]
    stored = [values[:count] for values in golden.stored]
    return dataclasses.replace(golden, stored=stored, outputs=outputs).to_bytes()
