"""The few names of TensorFlow Lite, Larq Compute Engine and Android that the programs use.

They are stubs: enough to compile against, and to run a model by the real engine, a program of
its own (`engine_program.py`). `STUB_ENGINE` is its command, `STUB_TENSORS` a file of the tensors.
"""

__all__ = ["CPP", "JAVA"]

_TFLITE = """
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
enum TfLiteType {
  kTfLiteFloat32 = 1, kTfLiteInt32 = 2, kTfLiteUInt8 = 3, kTfLiteInt64 = 4, kTfLiteBool = 6,
  kTfLiteInt8 = 9
};
struct TfLiteQuantizationParams { float scale; std::int32_t zero_point; };
union TfLitePtrUnion { char* raw; };
struct TfLiteTensor {
  TfLiteType type;
  TfLitePtrUnion data;
  TfLiteQuantizationParams params;
  std::size_t bytes;
};
namespace stub { inline std::string& Flags() { static std::string flags; return flags; } }
namespace tflite {
class MutableOpResolver {};
namespace ops { namespace builtin { class BuiltinOpResolver : public MutableOpResolver {}; } }
class FlatBufferModel {
 public:
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    std::unique_ptr<FlatBufferModel> model(new FlatBufferModel());
    model->path = path;
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) return nullptr;
    std::fclose(file);
    return model;
  }
  std::string path;
};
class Interpreter {
 public:
  TfLiteStatus SetNumThreads(int) { return kTfLiteOk; }
  TfLiteStatus AllocateTensors() {
    // A line for each tensor: input or output, type, bytes, scale, zero point.
    std::FILE* file = std::fopen(STUB_TENSORS, "r");
    if (file == nullptr) return kTfLiteError;
    int output, type, bytes, zero;
    float scale;
    while (std::fscanf(file, "%d %d %d %f %d", &output, &type, &bytes, &scale, &zero) == 5) {
      std::vector<int>& list = output ? outputs_ : inputs_;
      list.push_back(static_cast<int>(tensors_.size()));
      TfLiteTensor tensor;
      tensor.type = static_cast<TfLiteType>(type);
      tensor.data.raw = static_cast<char*>(std::calloc(bytes, 1));
      tensor.params = {scale, zero};
      tensor.bytes = bytes;
      tensors_.push_back(tensor);
    }
    std::fclose(file);
    return kTfLiteOk;
  }
  // The engine is a program of its own: it reads files and writes one.
  TfLiteStatus Invoke() {
    const std::string folder = std::string(STUB_TENSORS) + ".";
    std::string names;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const TfLiteTensor* tensor = input_tensor(i);
      const std::string path = folder + std::to_string(i);
      std::FILE* file = std::fopen(path.c_str(), "wb");
      std::fwrite(tensor->data.raw, 1, tensor->bytes, file);
      std::fclose(file);
      names += (i ? ",in:" : "in:") + path;
    }
    const std::string results = folder + "results";
    const std::string command = std::string(STUB_ENGINE) + " --graph=" + path +
        " --input_layer_value_files=" + names + " --output_filepath=" + results + stub::Flags() +
        " > " + folder + "log 2>&1";
    if (std::system(command.c_str()) != 0) return kTfLiteError;
    std::FILE* file = std::fopen(results.c_str(), "rb");
    bool whole = true;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      TfLiteTensor* tensor = output_tensor(i);
      whole &= std::fread(tensor->data.raw, 1, tensor->bytes, file) == tensor->bytes;
    }
    whole &= std::fgetc(file) == EOF;
    std::fclose(file);
    return whole ? kTfLiteOk : kTfLiteError;
  }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  TfLiteTensor* input_tensor(std::size_t index) { return &tensors_[inputs_[index]]; }
  TfLiteTensor* output_tensor(std::size_t index) { return &tensors_[outputs_[index]]; }
  std::string path;
 private:
  std::vector<TfLiteTensor> tensors_;
  std::vector<int> inputs_, outputs_;
};
class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel& model, const MutableOpResolver&)
      : path_(model.path) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* interpreter) {
    interpreter->reset(new Interpreter());
    (*interpreter)->path = path_;
    return kTfLiteOk;
  }
 private:
  std::string path_;
};
}  // namespace tflite
"""

_REGISTER = """
#pragma once
#include "tensorflow/lite/interpreter.h"
namespace compute_engine { namespace tflite {
inline void RegisterLCECustomOps(::tflite::MutableOpResolver*,
                                 const bool use_reference_bconv = false,
                                 const bool use_indirect_bgemm = false) {
  if (use_reference_bconv) stub::Flags() += " --use_reference_bconv=true";
  if (use_indirect_bgemm) stub::Flags() += " --use_indirect_bgemm=true";
}
} }
"""

CPP = {
    "tensorflow/lite/interpreter.h": _TFLITE,
    "tensorflow/lite/model.h": '#include "tensorflow/lite/interpreter.h"',
    "tensorflow/lite/kernels/register.h": '#include "tensorflow/lite/interpreter.h"',
    "larq_compute_engine/tflite/kernels/lce_ops_register.h": _REGISTER,
}

JAVA = {
    "android/content/Context.java": """
package android.content;
public class Context {
  public android.content.res.AssetManager getAssets() {
    return new android.content.res.AssetManager();
  }
}
""",
    "android/content/res/AssetManager.java": """
package android.content.res;
public class AssetManager {
  public AssetFileDescriptor openFd(String name) throws java.io.IOException {
    return new AssetFileDescriptor();
  }
}
""",
    "android/content/res/AssetFileDescriptor.java": """
package android.content.res;
public class AssetFileDescriptor implements java.io.Closeable {
  private final java.io.FileInputStream file;
  AssetFileDescriptor() throws java.io.IOException {
    file = new java.io.FileInputStream(System.getenv("STUB_MODEL"));
  }
  public java.io.FileDescriptor getFileDescriptor() throws java.io.IOException {
    return file.getFD();
  }
  public long getStartOffset() { return 0; }
  public long getDeclaredLength() { return 8; }
  @Override public void close() throws java.io.IOException { file.close(); }
}
""",
    # The engine is a program of its own: it reads files and writes one.
    "org/tensorflow/lite/Interpreter.java": """
package org.tensorflow.lite;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
public class Interpreter implements AutoCloseable {
  public static class Options {
    public Options setNumThreads(int threads) { return this; }
  }
  public Interpreter(ByteBuffer model, Options options) {}
  public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
    try {
      Path folder = Files.createTempDirectory("stub");
      List<String> names = new ArrayList<>();
      for (Object input : inputs) {
        Path path = folder.resolve("in" + names.size());
        ByteBuffer buffer = (ByteBuffer) input;
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        Files.write(path, bytes);
        names.add("in:" + path);
      }
      String engine = System.getenv("STUB_ENGINE");
      List<String> command = new ArrayList<>(Arrays.asList(engine.split(" ")));
      command.add("--graph=" + System.getenv("STUB_MODEL"));
      command.add("--input_layer_value_files=" + String.join(",", names));
      command.add("--output_filepath=" + folder.resolve("out"));
      Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
      process.getInputStream().readAllBytes();
      if (process.waitFor() != 0) throw new IllegalStateException("the engine failed");
      ByteBuffer results = ByteBuffer.wrap(Files.readAllBytes(folder.resolve("out")));
      for (int i = 0; i < outputs.size(); i++) {
        ByteBuffer buffer = (ByteBuffer) outputs.get(i);
        byte[] bytes = new byte[buffer.capacity()];
        results.get(bytes);
        buffer.put(bytes);
      }
    } catch (java.io.IOException | InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }
  @Override public void close() {}
}
""",
}
