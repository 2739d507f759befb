"""The few names of TensorFlow Lite, Larq Compute Engine and Android that the programs use.

They are stubs: enough to compile against, and to run a model that copies its input.
"""

__all__ = ["CPP", "JAVA"]

_TFLITE = """
#pragma once
#include <memory>
#include <vector>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
class MutableOpResolver {};
namespace ops { namespace builtin { class BuiltinOpResolver : public MutableOpResolver {}; } }
class FlatBufferModel {
 public:
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char*) {
    return std::unique_ptr<FlatBufferModel>(new FlatBufferModel());
  }
};
class Interpreter {
 public:
  TfLiteStatus SetNumThreads(int) { return kTfLiteOk; }
  TfLiteStatus AllocateTensors() { tensor_.resize(1 << 16); return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  template <class T> T* typed_input_tensor(int) { return tensor_.data(); }
  template <class T> T* typed_output_tensor(int) { return tensor_.data(); }
 private:
  std::vector<float> tensor_;
};
class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel&, const MutableOpResolver&) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* interpreter) {
    interpreter->reset(new Interpreter());
    return kTfLiteOk;
  }
};
}  // namespace tflite
"""

_REGISTER = """
#pragma once
#include <cstdio>
#include "tensorflow/lite/interpreter.h"
namespace compute_engine { namespace tflite {
inline void RegisterLCECustomOps(::tflite::MutableOpResolver*,
                                 const bool use_reference_bconv = false,
                                 const bool use_indirect_bgemm = false) {
  std::printf("reference %d, indirect %d\\n", use_reference_bconv, use_indirect_bgemm);
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
  public android.content.res.AssetManager getAssets() { return null; }
}
""",
    "android/content/res/AssetManager.java": """
package android.content.res;
public class AssetManager {
  public AssetFileDescriptor openFd(String name) throws java.io.IOException { return null; }
}
""",
    "android/content/res/AssetFileDescriptor.java": """
package android.content.res;
public class AssetFileDescriptor implements java.io.Closeable {
  public java.io.FileDescriptor getFileDescriptor() { return null; }
  public long getStartOffset() { return 0; }
  public long getDeclaredLength() { return 0; }
  @Override public void close() throws java.io.IOException {}
}
""",
    "org/tensorflow/lite/Interpreter.java": """
package org.tensorflow.lite;
public class Interpreter implements AutoCloseable {
  public static class Options {
    public Options setNumThreads(int threads) { return this; }
  }
  public Interpreter(java.nio.ByteBuffer model, Options options) {}
  public void run(Object input, Object output) {}
  @Override public void close() {}
}
""",
}
