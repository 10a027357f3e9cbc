// One row: the sums over its classes from which the statistics are computed, and its gradient.
//
// The row is read in blocks that fit the first-level cache, with a running maximum. Arithmetic is in float
// (in double for double), and the sums of the blocks are added in double.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "arithmetic.h"
#include "kernels.h"

namespace labelsmooth {
namespace {

constexpr int64_t width = 1024;  // the number of classes in a block
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <typename Z>
using Real = std::conditional_t<std::is_same_v<Z, double>, double, float>;

template <typename R>
constexpr R inf = std::numeric_limits<R>::infinity();

// A block of logits in the type of the arithmetic: itself or, for half precision, a copy in the buffer.
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

// The largest number, ignoring NaN; -inf if there is none. Explicit lanes, as compilers differ in which
// reductions they vectorise; the last numbers may be taken twice. Not inlined, as that takes long to compile.
template <int lanes, typename R>
__attribute__((noinline)) R largest(const R* x, int64_t n) {
    R top[lanes];
    for (R& lane : top) lane = -inf<R>;
    const auto take = [&](const R* from) __attribute__((always_inline)) {
#pragma omp simd
        for (int l = 0; l < lanes; ++l) top[l] = from[l] > top[l] ? from[l] : top[l];
    };
    if constexpr (lanes == 1) {
        for (int64_t k = 0; k < n; ++k) take(x + k);
        return top[0];
    } else {
        if (n < lanes) return largest<lanes / 8>(x, n);
        for (int64_t k = 0; k + lanes <= n; k += lanes) take(x + k);
        take(x + n - lanes);
        return largest<lanes / 8>(top, lanes);
    }
}

// The labels of a row: one class, or several with a share of the target each. A label may be absent.
template <typename R>
struct Labels {
    const int64_t* classes;
    const R* shares;
    int64_t count;

    Labels(const Problem& p, int64_t i)
        : classes(p.target ? p.target + i * p.labels : nullptr),
          shares(p.shares ? static_cast<const R*>(p.shares) + i * p.labels : nullptr),
          count(p.target ? p.labels : 0) {}

    // The class of a row with one label, otherwise absent.
    int64_t only() const { return count && !shares ? classes[0] : absent; }
    R share(int64_t j) const { return shares ? shares[j] : R(1); }
    R share_of(int64_t k) const {
        R sum = 0;
        for (int64_t j = 0; j < count; ++j)
            if (classes[j] == k) sum += share(j);
        return sum;
    }
    bool proper(int64_t number) const {
        for (int64_t j = 0; j < count; ++j)
            if (classes[j] != absent && (classes[j] < 0 || classes[j] >= number)) return false;
        return true;
    }
};

// The vectors over the classes that belong to a row; null if there is none.
template <typename R>
struct Vectors {
    const R* prior;
    const R* weight;
    const R* soft;

    Vectors(const Problem& p, int64_t i)
        : prior(static_cast<const R*>(p.prior)),
          weight(static_cast<const R*>(p.weight)),
          soft(p.soft ? static_cast<const R*>(p.soft) + i * p.classes : nullptr) {
        if (prior && p.prior_by_row)
            prior += i * p.prior_stride;
        else if (prior && p.prior_stride && p.target[i] != absent)
            prior += p.target[i] * p.prior_stride;
    }
    Vectors(const R* prior, const R* weight, const R* soft) : prior(prior), weight(weight), soft(soft) {}

    Vectors from(int64_t k) const {
        return {prior ? prior + k : nullptr, weight ? weight + k : nullptr, soft ? soft + k : nullptr};
    }
    R prior_at(int64_t k) const { return prior ? prior[k] : R(1); }
    R weight_at(int64_t k) const { return weight ? weight[k] : R(1); }
};

// The statistics beyond lse and linear ones: a hinge on the distance of the logits from the largest, and the
// mean of the logits under the model.
template <typename R>
struct Bend {
    bool hinge, squared, spread;
    R margin;

    explicit Bend(const Problem& p)
        : hinge(p.margin == p.margin), squared(p.squared), spread(p.spread), margin(R(p.margin)) {}
    bool any() const { return hinge || spread; }
    // The hinge at d, the logit minus the largest, and its derivative with respect to the distance -d.
    R at(R d) const {
        const R beyond = -d > margin ? -d - margin : R(0);
        return squared ? beyond * beyond : beyond;
    }
    R slope(R d) const {
        const R beyond = -d > margin ? -d - margin : R(0);
        return squared ? 2 * beyond : R(beyond > 0);
    }
};

// Calls f(has class probabilities, has any vector) with compile-time constants, so that a plain row costs
// nothing extra. If there is any vector, a missing one is read as ones.
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

// Sums over the classes read so far. Masked classes, whose logit is -inf, are in no sum over the prior.
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

    // Adds a class that is in the partition and not in the prior.
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

        const R top = largest<64>(x, n);
        if (top == -inf<R>) {  // all logits are -inf or NaN, which comparisons skip
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
        // The sum of a block overflows with several logits of finfo.min, a common value for masks.
        double long_dot = dot;
        if (dot == -inf<R>) {
            long_dot = 0;
            for (int64_t k = 0; k < n; ++k)
                if (x[k] > -inf<R>) long_dot += double(prior[k] * weight[k]) * (double(x[k]) - double(max));
        }
        s.exp += exp;
        s.mass += mass;
        s.weighted += has_vectors ? weighted : mass;
        s.dot += long_dot;
        s.soft_weighted += soft_weighted;
        s.soft_dot += soft_dot;
    }
}

template <typename Z, typename R>
INLINE Sums<R> sums_of(const Z* z, int64_t classes, const Vectors<R>& vectors, int64_t excluded) {
    Sums<R> s;
    specialised(vectors, [&](auto soft, auto any) __attribute__((always_inline)) {
        int64_t begin = 0;
        const int64_t ends[] = {excluded, classes};
        for (const int64_t end : ends) {
            if (end < 0) continue;
            add<soft, any>(s, z + begin, end - begin, vectors.from(begin));
            begin = end + 1;
        }
    });
    if (excluded >= 0) s.add_outside_prior(one(z[excluded]));
    if (s.max == -inf<R>) s.exp = nan;  // a distribution over no class
    return s;
}

// The sums for a bend, which need the largest logit.
template <typename R>
struct BendSums {
    double hinge = 0, slope = 0;  // prior * weight * (the hinge, its derivative)
    double model = 0;             // exp(z - max) * (z - max)
};

template <typename Z, typename R>
INLINE void add_bend(BendSums<R>& s, const Z* z, int64_t classes, const Vectors<R>& vectors, R max, const Bend<R>& bend) {
    R buffer[width];
    for (int64_t begin = 0; begin < classes; begin += width) {
        const int64_t n = classes - begin < width ? classes - begin : width;
        const R* x = load(z + begin, n, buffer);
        const R* prior = vectors.prior ? vectors.prior + begin : ones<R>.values;
        const R* weight = vectors.weight ? vectors.weight + begin : ones<R>.values;
        R hinge = 0, slope = 0, model = 0;
        if (bend.hinge) {
#pragma omp simd reduction(+ : hinge, slope)
            for (int64_t k = 0; k < n; ++k) {
                const bool valid = x[k] > -inf<R>;
                const R d = valid ? x[k] - max : R(0);
                const R pi = valid ? prior[k] * weight[k] : R(0);
                hinge += pi * bend.at(d);
                slope += pi * bend.slope(d);
            }
        }
        if (bend.spread) {
#pragma omp simd reduction(+ : model)
            for (int64_t k = 0; k < n; ++k) {
                const R d = x[k] > -inf<R> ? x[k] - max : R(0);
                model += x[k] > -inf<R> ? exp_nonpositive(d) * d : R(0);
            }
        }
        // As above, the sum of a block overflows with several logits of finfo.min.
        double long_hinge = hinge;
        if (hinge == inf<R>) {
            long_hinge = 0;
            for (int64_t k = 0; k < n; ++k)
                if (x[k] > -inf<R>) long_hinge += double(prior[k] * weight[k]) * double(bend.at(x[k] - max));
        }
        s.hinge += long_hinge;
        s.slope += slope;
        s.model += model;
    }
}

template <typename Z, typename R>
INLINE BendSums<R> bend_of(const Z* z, int64_t classes, const Vectors<R>& vectors, R max, const Bend<R>& bend,
                           int64_t excluded) {
    BendSums<R> s;
    int64_t begin = 0;
    const int64_t ends[] = {excluded, classes};
    for (const int64_t end : ends) {
        if (end < 0) continue;
        add_bend(s, z + begin, end - begin, vectors.from(begin), max, bend);
        begin = end + 1;
    }
    if (bend.spread && excluded >= 0 && one(z[excluded]) > -inf<R>) {  // in the model and not in the prior
        const double d = double(one(z[excluded])) - double(max);
        s.model += std::exp(d) * d;
    }
    return s;
}

template <typename R>
INLINE R product(R a, R x) {  // 0 * -inf = 0
    return a == 0 ? R(0) : a * x;
}

// Rounds x to its type, where the compiler might fuse the operation with an addition.
template <typename R>
INLINE R rounded(R x) {
    volatile R y = x;
    return y;
}

// The terms of target and prior in the gradient of a class with these shares. For a single class they cancel
// the term of the lse exactly, which torch computes by the same operations.
template <typename R>
INLINE R of_shares(R by_target, R target, R by_prior, R prior, R weight) {
    if (target == 1 && weight == 1) return by_target + by_prior * prior;  // nothing to round
    return rounded(by_target * (target * weight)) + rounded(by_prior * (prior * weight));
}

// The gradient of a row is of_exp * exp(z - max) + of_prior * prior + of_target * target, and with a bend
// + of_model * exp(z - max) * (z - max) - of_hinge * prior * slope.
template <typename R>
struct Coefficients {
    R max, of_exp, of_prior, of_target, of_model, of_hinge;
};

template <bool has_soft, bool has_vectors, bool has_bend, typename Z, typename R>
INLINE void write(Z* out, const Z* z, int64_t classes, const Vectors<R>& vectors, Coefficients<R> c, const Bend<R>& bend) {
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
            const R exp = exp_nonpositive(x[k] - c.max);
            R value = c.of_exp * exp + c.of_prior * pi;
            if constexpr (has_bend) {
                const R d = x[k] == -inf<R> ? R(0) : x[k] - c.max;
                value += c.of_model * exp * d - c.of_hinge * bend.slope(d) * pi;
            }
            if (has_soft) value += c.of_target * (soft[k] * w);
            g[k] = value;
        }
        if constexpr (!std::is_same_v<Z, R>) {
#pragma omp simd
            for (int64_t k = 0; k < n; ++k) put(result[k], out[begin + k]);
        }
    }
}

}  // namespace
}  // namespace labelsmooth
