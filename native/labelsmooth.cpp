// Row statistics of logits and their gradient: the dense engine on a CPU, with a plain C interface.
//
// reference.py is the specification. The forward pass writes a few numbers per row. The backward pass
// recomputes exp, which is cheaper than storing it, and writes the gradient once. The plain loss can do both at once.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "kernels.h"
#include "threads.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define API extern "C" __attribute__((visibility("default")))
#define TEXT_OF(...) #__VA_ARGS__
#define TEXT(names) TEXT_OF(names)

namespace {

using namespace labelsmooth;

static_assert(std::is_standard_layout_v<Terms> && std::is_trivially_copyable_v<Terms>);
static_assert(std::is_standard_layout_v<Problem> && std::is_trivially_copyable_v<Problem>);

struct Isa {
    const char* name;
    const Kernels* kernels;
    bool (*runs)();
};

// The instruction sets of this build, the best first. The compiler's test includes operating system support,
// which is needed to save the registers.
const Isa built[] = {
#if defined(LABELSMOOTH_AVX512)
    {"avx512", &avx512::kernels,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
     }},
#endif
#if defined(LABELSMOOTH_AVX2)
    {"avx2", &avx2::kernels,
     [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                __builtin_cpu_supports("bmi2");
     }},
#endif
#if defined(__x86_64__)
    {"sse2", &baseline::kernels, [] { return true; }},
#elif defined(__aarch64__)
    {"neon", &baseline::kernels, [] { return true; }},
#else
    {"baseline", &baseline::kernels, [] { return true; }},
#endif
};

const Isa* find(const char* name) {
    for (const Isa& isa : built)
        if ((!name || !std::strcmp(name, isa.name)) && isa.runs()) return &isa;
    return nullptr;
}

const Isa* chosen = find(nullptr);

constexpr int64_t work_per_turn = 1 << 15;  // the number of logits that is worth handing to a thread

void run(const Problem& p, const Rows* functions, void* context) {
    const int64_t block = (work_per_turn + p.classes - 1) / p.classes;
    share_out(p.rows, block, int(p.threads), functions[p.dtype], context);
}

// Asks for huge pages, which reduce page faults, as a new gradient is written once from end to end.
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
    if (out != p.z) expect_large_writes(out, size_t(p.rows) * size_t(p.classes) * chosen->kernels->size[p.dtype]);
}

}  // namespace

float* labelsmooth::thread_memory(int64_t numbers) {
    constexpr int64_t most = 1 << 18;  // 1 MiB, about the size of a second-level cache
    static thread_local std::unique_ptr<float[]> memory;
    static thread_local int64_t size = 0;
    if (numbers > most) return nullptr;
    if (numbers > size) {
        size = 0;
        memory.reset(new (std::nothrow) float[size_t(numbers)]);
        if (!memory) return nullptr;
        size = numbers;
    }
    return memory.get();
}

// The values that native.py compares with its own.
API int64_t labelsmooth_abi() { return 9; }
API int64_t labelsmooth_problem_size() { return sizeof(Problem); }
API int64_t labelsmooth_terms_size() { return sizeof(Terms); }
API int64_t labelsmooth_most_labels() { return most_labels; }
API int64_t labelsmooth_absent_class() { return absent; }
API const char* labelsmooth_dtypes() { return TEXT(LABELSMOOTH_DTYPES); }
API const char* labelsmooth_statistics() { return TEXT(LABELSMOOTH_STATISTICS); }
API const char* labelsmooth_gradient() { return TEXT(LABELSMOOTH_GRADIENT); }
API const char* labelsmooth_factors() { return TEXT(LABELSMOOTH_FACTORS); }
API const char* labelsmooth_saved() { return TEXT(LABELSMOOTH_SAVED); }

// The instruction set in use.
API const char* labelsmooth_isa() { return chosen->name; }

// Selects an instruction set, and returns whether this build and CPU support it. No other call may be running.
API int labelsmooth_use(const char* isa) {
    const Isa* found = find(isa);
    if (found) chosen = found;
    return found != nullptr;
}

// Returns -1, or a row whose target is out of range.
API int64_t labelsmooth_forward(const Problem* p, void* statistics) {
    Forward call{*p, statistics};
    run(*p, chosen->kernels->forward, &call);
    return call.bad.load();
}

API void labelsmooth_backward(const Problem* p, const void* statistics, const void* grad, void* out) {
    Backward call{*p, statistics, grad, out};
    prepare(*p, out);
    run(*p, chosen->kernels->backward, &call);
}

API void labelsmooth_losses(const Terms* t, const void* statistics, void* losses) {
    Losses call{*t, statistics, losses};
    share_out(t->rows, work_per_turn, int(t->threads), chosen->kernels->losses[t->dtype], &call);
}

API void labelsmooth_losses_backward(const Terms* t, const void* statistics, void* grad) {
    Losses call{*t, statistics, grad};
    share_out(t->rows, work_per_turn, int(t->threads), chosen->kernels->gradient[t->dtype], &call);
}

// The statistics, the losses, and the gradient of the losses' sum times `scale` of each row, with respect to the
// statistics (grad) and the logits (out). Returns -1, or a row whose target is out of range.
API int64_t labelsmooth_at_once(const Problem* p, const Terms* t, const void* scale, void* statistics, void* losses,
                                void* grad, void* out) {
    Terms scaled = *t;
    scaled.scale = scale;
    AtOnce call{{*p, statistics}, {*t, statistics, losses}, {scaled, statistics, grad}, {*p, statistics, grad, out}};
    prepare(*p, out);
    run(*p, chosen->kernels->at_once, &call);
    return call.forward.bad.load();
}

// Returns 1 if a target is out of range, otherwise 0. result: the sums of loss and nll, and the number of
// rows that are not ignored. out: the gradient of the sum times scale, divided by divisor or, if that is 0, by
// the number of rows that are not ignored; null: no gradient.
API int labelsmooth_uniform_forward(const Problem* p, int64_t ignore_index, double eps, void* saved, double* result,
                                    double scale, double divisor, void* out) {
    Uniform call{*p, ignore_index, eps, saved};
    if (out) {
        if (divisor == 0)
            for (int64_t i = 0; i < p->rows; ++i) divisor += p->target[i] != ignore_index;
        call.scale = scale / divisor;
        call.out = out;
        prepare(*p, out);
    }
    run(*p, out ? chosen->kernels->uniform_both : chosen->kernels->uniform_forward, &call);
    if (call.bad.load()) return 1;
    chosen->kernels->total[p->dtype](call, result);
    return 0;
}

API void labelsmooth_uniform_backward(const Problem* p, int64_t ignore_index, double eps, double scale, const void* saved,
                                      void* out) {
    Uniform call{*p, ignore_index, eps, const_cast<void*>(saved)};
    call.scale = scale;
    call.out = out;
    prepare(*p, out);
    run(*p, chosen->kernels->uniform_backward, &call);
}
