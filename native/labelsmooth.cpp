// Row statistics of logits and their gradient: the dense engine on a CPU, behind a plain C interface.
//
// reference.py is the specification. The forward pass writes nothing as wide as the classes; the backward pass
// finds exp again, which is cheaper than to store it, and writes the gradient once.

#include "statistics.h"
#include "threads.h"
#include "uniform.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(_WIN32)
#define API extern "C" __declspec(dllexport)
#else
#define API extern "C" __attribute__((visibility("default")))
#endif

// One copy of the code for each level of the instruction set, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define FOR_EACH_CPU
#endif

namespace {

using namespace labelsmooth;

constexpr int64_t work_per_turn = 1 << 15;  // logits that are worth handing to a thread

using Rows = void (*)(void*, int64_t, int64_t);

#define FOR_EACH_TYPE(function)                                                                             \
    FOR_EACH_CPU void function##_f32(void* c, int64_t b, int64_t e) { function##_rows<float>(c, b, e); }    \
    FOR_EACH_CPU void function##_f64(void* c, int64_t b, int64_t e) { function##_rows<double>(c, b, e); }   \
    FOR_EACH_CPU void function##_bf16(void* c, int64_t b, int64_t e) { function##_rows<bfloat16>(c, b, e); } \
    FOR_EACH_CPU void function##_f16(void* c, int64_t b, int64_t e) { function##_rows<float16>(c, b, e); }  \
    const Rows function[] = {function##_f32, function##_f64, function##_bf16, function##_f16};

FOR_EACH_TYPE(forward)
FOR_EACH_TYPE(backward)
FOR_EACH_TYPE(uniform_forward)
FOR_EACH_TYPE(uniform_backward)

void run(const Problem& p, const Rows* functions, void* context) {
    const int64_t block = (work_per_turn + p.classes - 1) / p.classes;
    share_out(p.rows, block, int(p.threads), functions[p.dtype], context);
}

// A new gradient is written once from end to end: with huge pages there are far fewer page faults.
void expect_large_writes(void* begin, size_t bytes) {
#if defined(__linux__)
    constexpr uintptr_t huge = uintptr_t(1) << 21;
    const uintptr_t first = (uintptr_t(begin) + huge - 1) & ~(huge - 1);
    const uintptr_t last = (uintptr_t(begin) + bytes) & ~(huge - 1);
    if (last > first + huge) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)begin, (void)bytes;
#endif
}

void prepare(const Problem& p, void* out) {
    constexpr size_t sizes[] = {4, 8, 2, 2};
    if (out != p.z) expect_large_writes(out, size_t(p.rows) * size_t(p.classes) * sizes[p.dtype]);
}

}  // namespace

API int labelsmooth_abi() { return 4; }

// -1, or a row whose target is out of range.
API int64_t labelsmooth_forward(const Problem* p, void* statistics) {
    Forward call{*p, statistics};
    run(*p, forward, &call);
    return call.bad.load();
}

API void labelsmooth_backward(const Problem* p, const void* statistics, const void* grad, void* out) {
    Backward call{*p, statistics, grad, out};
    prepare(*p, out);
    run(*p, backward, &call);
}

// 0, or 1 if a target is out of range. result: the sums of loss and nll, and how many rows count.
API int labelsmooth_uniform_forward(const Problem* p, int64_t ignore_index, double eps, void* saved, double* result) {
    Uniform call{*p, ignore_index, eps, saved};
    run(*p, uniform_forward, &call);
    if (call.bad.load()) return 1;
    p->dtype == 1 ? total<double>(call, result) : total<float>(call, result);
    return 0;
}

API void labelsmooth_uniform_backward(const Problem* p, int64_t ignore_index, double eps, double scale, const void* saved,
                                      void* out) {
    Uniform call{*p, ignore_index, eps, const_cast<void*>(saved)};
    call.scale = scale;
    call.out = out;
    prepare(*p, out);
    run(*p, uniform_backward, &call);
}
