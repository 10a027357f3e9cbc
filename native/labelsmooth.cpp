// Row statistics of logits and their gradient: the dense engine on a CPU, behind a plain C interface.
//
// reference.py is the specification. A row is read in blocks that stay in the first cache: the forward pass
// keeps a running maximum and writes nothing as wide as the classes, the backward pass finds exp again, which
// is cheaper than to store it. Arithmetic is in float (double for double), sums over blocks are in double.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "arithmetic.h"
#include "pool.h"

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

// What a call is about. dense.py has the same structure, field by field.
struct Problem {
    const void* z;  // row i lies at (i / inner) * outer_stride + (i % inner) * inner_stride, classes side by side
    int64_t dtype;  // 0 float, 1 double, 2 bfloat16, 3 float16
    int64_t rows, inner, outer_stride, inner_stride, classes;
    const int64_t* target;  // class indices, or null
    const void* soft;       // rows x classes class probabilities, or null
    const bool* counted;    // whether a row counts; null: all do
    const void* prior;      // null: uniform
    int64_t prior_stride;   // between the priors of two classes; 0: one for all
    const void* weight;     // of the classes, or null
    int64_t exclude_target;
    int64_t threads;
};

namespace {

using namespace labelsmooth;

constexpr int64_t width = 1024;                                  // of a block of classes
constexpr int64_t absent = std::numeric_limits<int64_t>::min();  // the target class is in another shard
constexpr int64_t work_per_turn = 1 << 15;                       // logits that are worth handing to a thread
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <typename Z>
using Real = std::conditional_t<std::is_same_v<Z, double>, double, float>;

template <typename R>
constexpr R inf = std::numeric_limits<R>::infinity();

// A block of logits to compute with: itself, or widened into the buffer.
INLINE const float* load(const float* z, int64_t, float*) { return z; }
INLINE const double* load(const double* z, int64_t, double*) { return z; }

template <typename Short>
INLINE const float* load(const Short* z, int64_t n, float* buffer) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) buffer[k] = widen(z[k]);
    return buffer;
}

INLINE float one(float x) { return x; }
INLINE double one(double x) { return x; }
INLINE float one(bfloat16 x) { return widen(x); }
INLINE float one(float16 x) { return widen(x); }

INLINE void put(float x, float& to) { to = x; }
INLINE void put(double x, double& to) { to = x; }
INLINE void put(float x, bfloat16& to) { narrow(x, to); }
INLINE void put(float x, float16& to) { narrow(x, to); }

template <typename Z>
INLINE const Z* row_of(const Problem& p, int64_t i) {
    int64_t outer = p.inner == p.rows ? 0 : i / p.inner;
    return static_cast<const Z*>(p.z) + outer * p.outer_stride + (i - outer * p.inner) * p.inner_stride;
}

// The class vectors that a row meets; null where there is none.
template <typename R>
struct Vectors {
    const R* prior;
    const R* weight;
    const R* soft;

    Vectors(const Problem& p, int64_t i)
        : prior(static_cast<const R*>(p.prior)),
          weight(static_cast<const R*>(p.weight)),
          soft(p.soft ? static_cast<const R*>(p.soft) + i * p.classes : nullptr) {
        if (prior && p.prior_stride && p.target[i] != absent) prior += p.target[i] * p.prior_stride;
    }
    Vectors(const R* prior, const R* weight, const R* soft) : prior(prior), weight(weight), soft(soft) {}

    Vectors from(int64_t k) const {
        return {prior ? prior + k : nullptr, weight ? weight + k : nullptr, soft ? soft + k : nullptr};
    }
    R prior_at(int64_t k) const { return prior ? prior[k] : R(1); }
    R weight_at(int64_t k) const { return weight ? weight[k] : R(1); }
};

// Calls f with what there is as constants, so that the plain case pays for nothing: class probabilities, and
// any vector at all. A vector that is missing beside another one is then read as ones.
template <typename R, typename F>
INLINE void specialised(const Vectors<R>& v, F&& f) {
    using yes = std::true_type;
    using no = std::false_type;
    if (v.soft)
        f(yes{}, yes{});
    else if (v.prior || v.weight)
        f(no{}, yes{});
    else
        f(no{}, no{});
}

template <typename R>
struct Ones {
    R values[width];
    constexpr Ones() : values() {
        for (R& value : values) value = 1;
    }
};
template <typename R>
constexpr Ones<R> ones;

// Sums over the classes seen so far; the masked ones, whose logit is -inf, are in none of the prior's.
template <typename R>
struct Sums {
    R max = -inf<R>;
    double exp = 0;            // exp(z - max)
    double mass = 0;           // prior
    double weighted = 0;       // prior * weight
    double dot = 0;            // prior * weight * (z - max)
    double soft_weighted = 0;  // class probabilities * weight
    double soft_dot = 0;       // class probabilities * weight * (z - max)

    INLINE void raise(R top) {
        if (!(top > max)) return;
        if (max > -inf<R>) {
            double shift = double(max) - double(top);
            exp *= std::exp(shift);
            dot += weighted * shift;
            soft_dot += soft_weighted * shift;
        }
        max = top;
    }

    // A class that is in the partition and in no prior.
    INLINE void add_outside_prior(R z) {
        raise(z);
        if (z != z) exp = nan;
        if (z > -inf<R>) exp += std::exp(double(z) - double(max));
    }
};

template <bool has_soft, bool has_vectors, typename Z, typename R>
INLINE void add(Sums<R>& s, const Z* z, int64_t classes, const Vectors<R>& vectors) {
    R buffer[width];
    for (int64_t begin = 0; begin < classes; begin += width) {
        const int64_t n = classes - begin < width ? classes - begin : width;
        const R* x = load(z + begin, n, buffer);
        const R* prior = vectors.prior ? vectors.prior + begin : ones<R>.values;
        const R* weight = vectors.weight ? vectors.weight + begin : ones<R>.values;
        const R* soft = has_soft ? vectors.soft + begin : nullptr;

        R top = -inf<R>;
#pragma omp simd reduction(max : top)
        for (int64_t k = 0; k < n; ++k) top = x[k] > top ? x[k] : top;
        if (top == -inf<R>) {  // all masked, or NaN, which no comparison finds
            for (int64_t k = 0; k < n; ++k) {
                if (x[k] != x[k]) s.exp = nan;
                if (has_soft && soft[k] * weight[k] != 0) {
                    s.soft_weighted += soft[k] * weight[k];
                    s.soft_dot = -inf<double>;
                }
            }
            continue;
        }
        s.raise(top);

        const R max = s.max;
        R exp = 0, mass = 0, weighted = 0, dot = 0, soft_weighted = 0, soft_dot = 0;
#pragma omp simd reduction(+ : exp, mass, weighted, dot, soft_weighted, soft_dot)
        for (int64_t k = 0; k < n; ++k) {
            const R d = x[k] - max;
            const R w = has_vectors ? weight[k] : R(1);
            const bool valid = x[k] > -inf<R>;
            const R pi = valid ? (has_vectors ? prior[k] : R(1)) : R(0);
            exp += exp_nonpositive(d);
            mass += pi;
            if (has_vectors) weighted += pi * w;
            dot += pi * w * (valid ? d : R(0));
            if (has_soft) {
                const R t = soft[k] * w;
                soft_weighted += t;
                soft_dot += t == 0 ? R(0) : t * d;
            }
        }
        s.exp += exp;
        s.mass += mass;
        s.weighted += has_vectors ? weighted : mass;
        s.dot += dot;
        s.soft_weighted += soft_weighted;
        s.soft_dot += soft_dot;
    }
}

template <typename Z, typename R>
INLINE Sums<R> sums_of(const Z* z, int64_t classes, const Vectors<R>& vectors, int64_t excluded) {
    Sums<R> s;
    specialised(vectors, [&](auto soft, auto any) __attribute__((always_inline)) {
        int64_t begin = 0;
        for (int64_t end : {excluded, classes}) {
            if (end < 0) continue;
            add<soft, any>(s, z + begin, end - begin, vectors.from(begin));
            begin = end + 1;
        }
    });
    if (excluded >= 0) s.add_outside_prior(one(z[excluded]));
    if (s.max == -inf<R>) s.exp = nan;  // a distribution over no class
    return s;
}

template <typename R>
INLINE R product(R a, R x) {  // 0 * -inf = 0
    return a == 0 ? R(0) : a * x;
}

struct Forward {
    const Problem& p;
    void* statistics;  // 7 x rows, in the order of RowStatistics
    std::atomic<int64_t> bad{-1};
};

template <typename Z>
INLINE void forward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    Forward& call = *static_cast<Forward*>(context);
    const Problem& p = call.p;
    R* out = static_cast<R*>(call.statistics);
    for (int64_t i = begin; i < end; ++i) {
        R lse = 0, target_z = 0, prior_z = 0, target_mass = 0, prior_mass = 0, valid_mass = 0, z_max = 0;
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
            if (s.mass > 0) {
                valid_mass = R(vectors.prior ? s.mass : s.mass / double(p.classes));
                prior_mass = R(s.weighted / s.mass);
                prior_z = R(s.dot / s.mass);
            } else {
                prior_mass = target_mass;
                prior_z = target_z;
            }
        }
        const R all[] = {lse, target_z, prior_z, target_mass, prior_mass, valid_mass, z_max};
        for (int64_t j = 0; j < 7; ++j) out[j * p.rows + i] = all[j];
    }
}

// What the gradient of a row is made of: of_exp * exp(z - max) + of_prior * prior + of_target * target.
template <typename R>
struct Coefficients {
    R max, of_exp, of_prior, of_target;
};

template <bool has_soft, bool has_vectors, typename Z, typename R>
INLINE void write(Z* out, const Z* z, int64_t classes, const Vectors<R>& vectors, Coefficients<R> c) {
    R buffer[width], result[width];
    for (int64_t begin = 0; begin < classes; begin += width) {
        const int64_t n = classes - begin < width ? classes - begin : width;
        const R* x = load(z + begin, n, buffer);
        R* g;
        if constexpr (std::is_same_v<Z, R>)
            g = out + begin;
        else
            g = result;
        const R* prior = vectors.prior ? vectors.prior + begin : ones<R>.values;
        const R* weight = vectors.weight ? vectors.weight + begin : ones<R>.values;
        const R* soft = has_soft ? vectors.soft + begin : nullptr;
#pragma omp simd
        for (int64_t k = 0; k < n; ++k) {
            const R w = has_vectors ? weight[k] : R(1);
            const R pi = x[k] == -inf<R> ? R(0) : (has_vectors ? prior[k] : R(1)) * w;
            R value = c.of_exp * exp_nonpositive(x[k] - c.max) + c.of_prior * pi;
            if (has_soft) value += c.of_target * (soft[k] * w);
            g[k] = value;
        }
        if constexpr (!std::is_same_v<Z, R>) {
#pragma omp simd
            for (int64_t k = 0; k < n; ++k) put(result[k], out[begin + k]);
        }
    }
}

struct Backward {
    const Problem& p;
    const void* statistics;  // 7 x rows
    const void* grad;        // 3 x rows: by lse, target_z and prior_z
    void* out;               // rows x classes; may be z itself
};

template <typename Z>
INLINE void backward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Backward& call = *static_cast<Backward*>(context);
    const Problem& p = call.p;
    const R* statistics = static_cast<const R*>(call.statistics);
    const R* grad = static_cast<const R*>(call.grad);
    for (int64_t i = begin; i < end; ++i) {
        Z* out = static_cast<Z*>(call.out) + i * p.classes;
        if (p.counted && !p.counted[i]) {
            for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
            continue;
        }
        const int64_t y = p.target ? p.target[i] : absent;
        const Z* z = row_of<Z>(p, i);
        const Vectors<R> vectors(p, i);
        const R lse = statistics[i], z_max = statistics[6 * p.rows + i];
        const double mass = double(statistics[5 * p.rows + i]) * (vectors.prior ? 1.0 : double(p.classes));
        const R by_target = grad[p.rows + i], by_prior = grad[2 * p.rows + i];
        const Coefficients<R> c{
            z_max,
            R(double(grad[i]) * std::exp(-double(lse))),
            mass > 0 ? R(by_prior / mass) : R(0),
            mass > 0 ? by_target : by_target + by_prior,
        };
        R at_target = 0;
        if (y != absent) {
            const R z_y = one(z[y]);
            const bool in_prior = z_y != -inf<R> && !p.exclude_target;
            at_target = c.of_exp * exp_nonpositive(z_y - z_max) + c.of_target * vectors.weight_at(y);
            if (in_prior) at_target += c.of_prior * vectors.prior_at(y) * vectors.weight_at(y);
        }
        specialised(vectors, [&](auto soft, auto any) __attribute__((always_inline)) {
            write<soft, any>(out, z, p.classes, vectors, c);
        });
        if (y != absent) put(at_target, out[y]);
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
            const double spread = s.mass > 0 ? log_sum - s.dot / s.mass : hard;
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
            valid > 0 ? R(-call.scale * call.eps / valid) : R(0),
            valid > 0 ? R(-call.scale * (1 - call.eps)) : R(-call.scale),
        };
        const R z_y = one(z[y]);
        R at_target = c.of_exp * exp_nonpositive(z_y - z_max) + c.of_target;
        if (z_y != -inf<R>) at_target += c.of_prior;
        write<false, false>(out, z, p.classes, Vectors<R>(nullptr, nullptr, nullptr), c);
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
    Pool::get().run(p.rows, block, int(p.threads), functions[p.dtype], context);
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

API int labelsmooth_abi() { return 1; }

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
