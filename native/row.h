// One row: the sums over its classes from which the statistics are computed, and its gradient.
//
// The row is read in blocks that fit the first-level cache, first for the largest logit and then for the sums.
// Arithmetic is in float (in double for double), and the sums of the blocks are added in double.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "arithmetic.h"
#include "kernels.h"
#include "simd.h"

namespace labelsmooth {
namespace {

constexpr int64_t width = 1024;  // the number of classes in a block
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <typename Z>
using Real = std::conditional_t<std::is_same_v<Z, double>, double, float>;

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
    // Of a number, or of each number of a vector.
    template <typename T>
    INLINE T at(T d) const {
        const T beyond = -d > margin ? -d - margin : T{};
        return squared ? beyond * beyond : beyond;
    }
    template <typename T>
    INLINE T slope(T d) const {
        const T none{}, beyond = -d > margin ? -d - margin : none;
        return squared ? 2 * beyond : beyond > 0 ? none + 1 : none;
    }
};

// Calls f(has class probabilities, has any vector, has a bend) with compile-time constants, so that a plain row
// costs nothing extra. If there is any vector, a missing one is read as ones.
template <typename R, typename F>
INLINE void specialised(const Vectors<R>& v, const Bend<R>& bend, F&& f) {
    using yes = std::true_type;
    using no = std::false_type;
    if (bend.any() && v.soft)
        f(yes{}, yes{}, yes{});
    else if (bend.any())
        f(no{}, yes{}, yes{});
    else if (v.soft)
        f(yes{}, yes{}, no{});
    else if (v.prior || v.weight)
        f(no{}, yes{}, no{});
    else
        f(no{}, no{}, no{});
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

// exp(x - max) of n numbers, at least one vector. Not inlined: it is the longest code of the sums and of the
// gradient.
template <typename R>
__attribute__((noinline)) void exp_of(const R* x, int64_t n, R max, R* exp) {
    for_each_vector<R>(n, [&](int64_t k, int64_t) __attribute__((always_inline)) {
#pragma omp simd
        for (int64_t l = 0; l < lanes<R>; ++l) exp[k + l] = exp_nonpositive(x[k + l] - max);
    });
}

// Sums over the classes. Masked classes, whose logit is -inf, are in no sum over the prior.
template <typename R>
struct Sums {
    R max;
    double exp = 0;                // exp(z - max)
    double mass = 0;               // prior
    double weighted = 0;           // prior * weight
    double dot = 0;                // prior * weight * (z - max)
    double soft_weighted = 0;      // class probabilities * weight
    double soft_dot = 0;           // class probabilities * weight * (z - max)
    double hinge = 0, slope = 0;   // prior * weight * (the hinge, its derivative)
    double model = 0;              // exp(z - max) * (z - max)
};

// Adds a block of n classes, and writes exp(z - max) of each where that is not null. x has at least one vector.
template <bool has_soft, bool has_vectors, bool has_bend, typename R>
INLINE void add(Sums<R>& s, const R* x, int64_t n, const Vectors<R>& vectors, const Bend<R>& bend, R* kept) {
    R exponentials[width], few[3][lanes<R>];
    const R* prior = vectors.prior ? filled(vectors.prior, n, few[0], R(0)) : ones<R>.values;
    const R* weight = vectors.weight ? filled(vectors.weight, n, few[1], R(0)) : ones<R>.values;
    const R* soft = has_soft ? filled(vectors.soft, n, few[2], R(0)) : nullptr;
    const int64_t end = std::max(n, lanes<R>);
    const R max = s.max > -inf<R> ? s.max : R(0);
    R* e = kept && n == end ? kept : exponentials;
    exp_of(x, end, max, e);
    if (kept && e != kept) copy(e, n, kept);

    Vector<R> exps{}, masses{}, all_weighted{}, dots{}, softs_weighted{}, soft_dots{}, hinges{}, slopes{}, models{};
    const Vector<R> none{}, one = none + 1, lowest = none - inf<R>;
    for_each_vector<R>(end, [&](int64_t k, int64_t skipped) __attribute__((always_inline)) {
        Vector<R> at = vector_at(x + k), exp = vector_at(e + k), t = none;
        if (has_soft) t = vector_at(soft + k) * vector_at(weight + k);
        if (skipped) {
            at = before<R>(skipped) ? lowest : at;
            exp = before<R>(skipped) ? none : exp;
            t = before<R>(skipped) ? none : t;
        }
        const Vector<R> d = at - max, valid_d = at > -inf<R> ? d : none;
        const Vector<R> pi = at > -inf<R> ? (has_vectors ? vector_at(prior + k) : one) : none;
        const Vector<R> weighted = has_vectors ? pi * vector_at(weight + k) : pi;
        exps += exp;
        masses += pi;
        if (has_vectors) all_weighted += weighted;
        dots += weighted * valid_d;
        if constexpr (has_soft) {
            softs_weighted += t;
            soft_dots += t == 0 ? none : t * d;
        }
        if constexpr (has_bend) {
            hinges += weighted * bend.at(valid_d);
            slopes += weighted * bend.slope(valid_d);
            models += exp * valid_d;
        }
    });
    const R dot = sum_of<R>(dots), hinge = sum_of<R>(hinges);
    // The sum of a block overflows with several logits of finfo.min, a common value for masks.
    double long_dot = dot, long_hinge = hinge;
    if (dot == -inf<R> || hinge == inf<R>) {
        long_dot = long_hinge = 0;
        for (int64_t k = 0; k < n; ++k) {
            if (!(x[k] > -inf<R>)) continue;
            const double pi = double(prior[k] * weight[k]);
            long_dot += pi * (double(x[k]) - double(max));
            long_hinge += pi * double(bend.at(x[k] - max));
        }
    }
    s.exp += sum_of<R>(exps);
    s.mass += sum_of<R>(masses);
    s.weighted += has_vectors ? sum_of<R>(all_weighted) : sum_of<R>(masses);
    s.dot += long_dot;
    s.soft_weighted += sum_of<R>(softs_weighted);
    s.soft_dot += sum_of<R>(soft_dots);
    s.hinge += long_hinge;
    s.slope += sum_of<R>(slopes);
    s.model += sum_of<R>(models);
}

// Where exp(z - max) of rows is kept between the forward and the backward pass: the place of their gradient or,
// for half precision, memory of the thread. Null if there is none.
template <typename Z>
INLINE Real<Z>* place_of(const Problem& p, void* out, int64_t first, int64_t rows) {
    if constexpr (std::is_same_v<Z, Real<Z>>)
        return static_cast<Z*>(out) + first * p.classes;
    else
        return thread_memory(rows * p.classes);
}

// The sums of a row. The prior leaves out the excluded class, if that is not negative.
template <typename Z, typename R>
INLINE Sums<R> sums_of(const Z* z, int64_t classes, const Vectors<R>& vectors, const Bend<R>& bend, int64_t excluded,
                       R* kept) {
    R buffer[width], few[lanes<R>];
    const R* x = nullptr;
    const auto read = [&](int64_t begin, int64_t n) __attribute__((always_inline)) {
        x = filled(load(z + begin, n, buffer), n, few, -inf<R>);
    };
    Sums<R> s{-inf<R>};
    for (int64_t begin = 0; begin < classes; begin += width) {
        const int64_t n = std::min(width, classes - begin);
        read(begin, n);
        const R top = largest(x, std::max(n, lanes<R>));
        s.max = top > s.max ? top : s.max;
    }
    const bool at_hand = classes <= width && excluded < 0;  // the first block, which was read last
    specialised(vectors, bend, [&](auto soft, auto any, auto bent) __attribute__((always_inline)) {
        int64_t begin = 0;
        const int64_t ends[] = {excluded, classes};
        for (const int64_t end : ends) {
            if (end < 0) continue;
            for (int64_t n; begin < end; begin += n) {
                n = std::min(width, end - begin);
                if (!at_hand) read(begin, n);
                add<soft, any, bent>(s, x, n, vectors.from(begin), bend, kept ? kept + begin : nullptr);
            }
            begin = end + 1;
        }
    });
    if (excluded >= 0) {  // in the partition and the model, and not in the prior
        const R d = one(z[excluded]) - s.max;
        const double exp = d == -inf<R> ? 0 : std::exp(double(d));
        s.exp += exp;
        if (exp > 0) s.model += exp * double(d);
        if (kept) kept[excluded] = exp_nonpositive(d);
    }
    if (s.max == -inf<R>) s.exp = nan;  // a distribution over no class
    return s;
}

// The first class with this logit, or -1.
template <typename Z, typename R>
INLINE int64_t first_with(R wanted, const Z* z, int64_t classes) {
    constexpr int64_t together = 256;
    for (int64_t begin = 0; begin < classes; begin += together) {
        const int64_t end = std::min(begin + together, classes);
        int found = 0;
#pragma omp simd reduction(| : found)
        for (int64_t k = begin; k < end; ++k) found |= one(z[k]) == wanted;
        for (int64_t k = begin; found && k < end; ++k)
            if (one(z[k]) == wanted) return k;
    }
    return -1;
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

// Writes the gradient of a row; kept: exp(z - max) of each class, or null. It may be the gradient's own place.
template <bool has_soft, bool has_vectors, bool has_bend, typename Z, typename R>
INLINE void write(Z* out, const Z* z, int64_t classes, const Vectors<R>& vectors, Coefficients<R> c, const Bend<R>& bend,
                  const R* kept) {
    R buffer[width], exponentials[width], result[width], few[lanes<R>];
    for (int64_t begin = 0; begin < classes; begin += width) {
        const int64_t n = std::min(width, classes - begin);
        const R* x = load(z + begin, n, buffer);
        const R* e = kept ? kept + begin : exponentials;
        if (!kept) exp_of(filled(x, n, few, -inf<R>), std::max(n, lanes<R>), c.max, exponentials);
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
            R value = c.of_exp * e[k] + c.of_prior * pi;
            if constexpr (has_bend) {
                const R d = x[k] == -inf<R> ? R(0) : x[k] - c.max;
                value += c.of_model * e[k] * d - c.of_hinge * bend.slope(d) * pi;
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
