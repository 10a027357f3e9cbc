// Row statistics of logits and their gradient: the dense engine on a CPU, behind a plain C interface.
//
// reference.py is the specification. The forward pass writes nothing as wide as the classes; the backward pass
// finds exp again, which is cheaper than to store it, and writes the gradient once.

#include <atomic>

#include "threads.h"
#include "row.h"

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

struct Forward {
    const Problem& p;
    void* statistics;  // 10 x rows, in the order of RowStatistics
    std::atomic<int64_t> bad{-1};
};

template <typename Z>
INLINE void forward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    Forward& call = *static_cast<Forward*>(context);
    const Problem& p = call.p;
    R* out = static_cast<R*>(call.statistics);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        R lse = 0, target_z = 0, prior_z = 0, target_mass = 0, prior_mass = 0, valid_mass = 0, z_max = 0;
        R hinge = 0, model_z = 0, slope = 0;
        if (!p.counted || p.counted[i]) {
            const int64_t y = p.target ? p.target[i] : absent;
            if (y != absent && (y < 0 || y >= p.classes)) {
                call.bad.store(i, std::memory_order_relaxed);
                continue;
            }
            const Z* z = row_of<Z>(p, i);
            const Vectors<R> vectors(p, i);
            const Sums<R> s = sums_of(z, p.classes, vectors, p.exclude_target ? y : -1);
            lse = R(std::log(s.exp));
            z_max = s.max;
            if (y != absent) {
                target_mass = vectors.weight_at(y);
                target_z = product(target_mass, R(one(z[y]) - s.max));
            } else if (vectors.soft) {
                target_mass = R(s.soft_weighted);
                target_z = R(s.soft_dot);
            }
            const R mass = R(vectors.prior ? s.mass : s.mass / double(p.classes));
            const bool sizeable = !(mass < std::numeric_limits<R>::min());  // so that it can be divided by
            if (sizeable) {
                valid_mass = mass;
                prior_mass = R(s.weighted / s.mass);
                prior_z = R(s.dot / s.mass);
            } else {
                prior_mass = target_mass;
                prior_z = target_z;
            }
            if (bend.any()) {
                const BendSums<R> b = bend_of(z, p.classes, vectors, s.max, bend, p.exclude_target ? y : -1);
                if (sizeable) {
                    hinge = R(b.hinge / s.mass);
                    slope = R(b.slope / s.mass);
                }
                model_z = R(b.model / s.exp);
            }
        }
        const R all[] = {lse, target_z, prior_z, hinge, model_z, target_mass, prior_mass, valid_mass, z_max, slope};
        for (int64_t j = 0; j < 10; ++j) out[j * p.rows + i] = all[j];
    }
}

struct Backward {
    const Problem& p;
    const void* statistics;  // 10 x rows
    const void* grad;        // 5 x rows: by lse, target_z, prior_z, hinge and model_z
    void* out;               // rows x classes; may be z itself
};

template <typename Z>
INLINE void backward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Backward& call = *static_cast<Backward*>(context);
    const Problem& p = call.p;
    const R* statistics = static_cast<const R*>(call.statistics);
    const R* grad = static_cast<const R*>(call.grad);
    const Bend<R> bend(p);
    for (int64_t i = begin; i < end; ++i) {
        Z* out = static_cast<Z*>(call.out) + i * p.classes;
        if (p.counted && !p.counted[i]) {
            for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
            continue;
        }
        const int64_t y = p.target ? p.target[i] : absent;
        const Z* z = row_of<Z>(p, i);
        const Vectors<R> vectors(p, i);
        const auto statistic = [&](int64_t j) { return statistics[j * p.rows + i]; };
        const auto by = [&](int64_t j) { return grad[j * p.rows + i]; };
        const R z_max = statistic(8), model_z = statistic(4);
        const double mass = double(statistic(7)) * (vectors.prior ? 1.0 : double(p.classes));
        const double inverse = std::exp(-double(statistic(0)));
        const R by_model = bend.spread ? by(4) : R(0), by_hinge = bend.hinge ? by(3) : R(0);
        const Coefficients<R> c{
            z_max,
            R((double(by(0)) + double(by_model) * (1 - double(model_z))) * inverse),
            mass != 0 ? R(by(2) / mass) : R(0),
            mass != 0 ? by(1) : by(1) + by(2),
            R(by_model * inverse),
            mass != 0 ? R(by_hinge / mass) : R(0),
        };
        // The classes that have more than their neighbours: the target and, with a hinge, the largest.
        int64_t top = -1;
        if (bend.hinge)
            for (int64_t k = 0; k < p.classes && top < 0; ++k)
                if (one(z[k]) == z_max) top = k;
        const auto value_at = [&](int64_t k) {
            const R x = one(z[k]), weight = vectors.weight_at(k);
            const R d = x - z_max, exp = exp_nonpositive(d);
            R value = c.of_exp * exp;
            if (x != -inf<R>) {
                value += c.of_model * exp * d;
                if (k != y || !p.exclude_target)
                    value += (c.of_prior - c.of_hinge * bend.slope(d)) * vectors.prior_at(k) * weight;
            }
            if (vectors.soft) value += c.of_target * (vectors.soft[k] * weight);
            if (k == y) value += c.of_target * weight;
            if (k == top) value += by_hinge * statistic(9);
            return value;
        };
        const R at_target = y != absent ? value_at(y) : R(0), at_top = top >= 0 ? value_at(top) : R(0);
        specialised(vectors, [&](auto soft, auto any) __attribute__((always_inline)) {
            if (bend.any())
                write<soft, true, true>(out, z, p.classes, vectors, c, bend);
            else
                write<soft, any, false>(out, z, p.classes, vectors, c, bend);
        });
        if (y != absent) put(at_target, out[y]);
        if (top >= 0) put(at_top, out[top]);
    }
}

// The commonest loss in one go: class indices, the uniform prior, one strength for all, a sum or mean.
struct Uniform {
    const Problem& p;
    int64_t ignore_index;
    double eps;
    void* saved;  // 5 x rows: lse, z_max, number of valid classes, loss, nll
    std::atomic<bool> bad{false};
    double scale = 0;  // of the gradient
    void* out = nullptr;
};

template <typename Z>
INLINE void uniform_forward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    Uniform& call = *static_cast<Uniform*>(context);
    const Problem& p = call.p;
    R* saved = static_cast<R*>(call.saved);
    for (int64_t i = begin; i < end; ++i) {
        R lse = 0, z_max = 0, valid = 0, loss = 0, nll = 0;
        const int64_t y = p.target[i];
        if (y != call.ignore_index) {
            if (y < 0 || y >= p.classes) {
                call.bad.store(true, std::memory_order_relaxed);
                return;
            }
            const Z* z = row_of<Z>(p, i);
            const Sums<R> s = sums_of(z, p.classes, Vectors<R>(nullptr, nullptr, nullptr), -1);
            const double log_sum = std::log(s.exp);
            const double hard = log_sum - (double(one(z[y])) - double(s.max));
            const double spread = log_sum - s.dot / s.mass;
            lse = R(log_sum);
            z_max = s.max;
            valid = R(s.mass);
            nll = R(hard);
            loss = R(product(1 - call.eps, hard) + product(call.eps, spread));
        }
        const R all[] = {lse, z_max, valid, loss, nll};
        for (int64_t j = 0; j < 5; ++j) saved[j * p.rows + i] = all[j];
    }
}

template <typename Z>
INLINE void uniform_backward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Uniform& call = *static_cast<Uniform*>(context);
    const Problem& p = call.p;
    const R* saved = static_cast<const R*>(call.saved);
    for (int64_t i = begin; i < end; ++i) {
        Z* out = static_cast<Z*>(call.out) + i * p.classes;
        const int64_t y = p.target[i];
        if (y == call.ignore_index) {
            for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
            continue;
        }
        const Z* z = row_of<Z>(p, i);
        const R z_max = saved[p.rows + i];
        const double valid = saved[2 * p.rows + i];
        const Coefficients<R> c{
            z_max,
            R(call.scale * std::exp(-double(saved[i]))),
            R(-call.scale * call.eps / valid),  // without a valid class lse is NaN, and all of the row
            R(-call.scale * (1 - call.eps)),
            0,
            0,
        };
        const R z_y = one(z[y]);
        R at_target = c.of_exp * exp_nonpositive(z_y - z_max) + c.of_target;
        if (z_y != -inf<R>) at_target += c.of_prior;
        write<false, false, false>(out, z, p.classes, Vectors<R>(nullptr, nullptr, nullptr), c, Bend<R>(p));
        put(at_target, out[y]);
    }
}

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

template <typename R>
void total(const Uniform& call, double* result) {
    const int64_t rows = call.p.rows;
    const R* saved = static_cast<const R*>(call.saved);
    double loss = 0, nll = 0;
    int64_t counted = 0;
    for (int64_t i = 0; i < rows; ++i) {
        loss += saved[3 * rows + i];
        nll += saved[4 * rows + i];
        counted += call.p.target[i] != call.ignore_index;
    }
    result[0] = loss;
    result[1] = nll;
    result[2] = double(counted);
}

}  // namespace

API int labelsmooth_abi() { return 2; }

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
