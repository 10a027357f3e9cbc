// Vectors of numbers in the registers of the instruction set: loads, sums and maxima of blocks.

#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "arithmetic.h"

namespace labelsmooth {
namespace {

template <typename R>
constexpr R inf = std::numeric_limits<R>::infinity();

// A vector of numbers, for sums: a compiler that vectorises a sum may add its lanes one by one in the end.
#if defined(__AVX512F__)
constexpr int64_t vector_bytes = 64;
#elif defined(__AVX__)
constexpr int64_t vector_bytes = 32;
#else
constexpr int64_t vector_bytes = 16;
#endif

template <typename R>
constexpr int64_t lanes = vector_bytes / sizeof(R);

template <typename R>
struct VectorOf {
    typedef R type __attribute__((vector_size(vector_bytes)));
};
template <typename R>
using Vector = typename VectorOf<R>::type;

template <typename R>
INLINE Vector<R> vector_at(const R* x) {
    Vector<R> v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

template <int64_t n, typename R>
INLINE R sum_in_pairs(R* x) {
    if constexpr (n > 1) {
#pragma omp simd
        for (int64_t l = 0; l < n / 2; ++l) x[l] += x[l + n / 2];
        return sum_in_pairs<n / 2>(x);
    }
    return x[0];
}

template <typename R>
INLINE R sum_of(Vector<R> v) {
    R x[lanes<R>];
    std::memcpy(x, &v, sizeof v);
    return sum_in_pairs<lanes<R>>(x);
}

// Calls f(first number, number of lanes to skip) for vectors that cover n numbers, at least one vector. The last
// overlaps the one before, where the same numbers are skipped: a part of a vector would be read one by one.
template <typename R, typename F>
INLINE void for_each_vector(int64_t n, F&& f) {
    int64_t k = 0;
    for (; k + lanes<R> <= n; k += lanes<R>) f(k, int64_t(0));
    if (k < n) f(n - lanes<R>, k + lanes<R> - n);
}

// Where to skip lanes.
template <typename R>
INLINE auto before(int64_t skipped) {
    R index[lanes<R>];
    for (int64_t l = 0; l < lanes<R>; ++l) index[l] = R(l);
    return vector_at(index) < R(skipped);
}

template <typename R>
INLINE void copy(const R* from, int64_t n, R* to) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) to[k] = from[k];
}

// The n numbers at x or, if they are fewer than a vector has, a vector of them and of others in the buffer.
template <typename R>
INLINE const R* filled(const R* x, int64_t n, R* buffer, R rest) {
    if (n >= lanes<R>) return x;
    for (int64_t k = 0; k < lanes<R>; ++k) buffer[k] = k < n ? x[k] : rest;
    return buffer;
}

template <int64_t n, typename R>
INLINE R largest_in_pairs(R* x) {
    if constexpr (n > 1) {
#pragma omp simd
        for (int64_t l = 0; l < n / 2; ++l) x[l] = x[l + n / 2] > x[l] ? x[l + n / 2] : x[l];
        return largest_in_pairs<n / 2>(x);
    }
    return x[0];
}

// The largest of n numbers, at least one vector, ignoring NaN; -inf if there is none.
template <typename R>
INLINE R largest(const R* x, int64_t n) {
    constexpr int64_t together = 4;  // comparisons take longer than they keep the processor busy
    const Vector<R> lowest = Vector<R>{} - inf<R>;
    Vector<R> tops[together] = {lowest, lowest, lowest, lowest};
    int64_t k = 0;
    for (; k + together * lanes<R> <= n; k += together * lanes<R>) {
        for (int64_t j = 0; j < together; ++j) {
            const Vector<R> at = vector_at(x + k + j * lanes<R>);
            tops[j] = at > tops[j] ? at : tops[j];
        }
    }
    for_each_vector<R>(n - k, [&](int64_t from, int64_t) __attribute__((always_inline)) {
        const Vector<R> at = vector_at(x + k + from);
        tops[0] = at > tops[0] ? at : tops[0];
    });
    R lane[together * lanes<R>];
    std::memcpy(lane, tops, sizeof lane);
    return largest_in_pairs<together * lanes<R>>(lane);
}

}  // namespace
}  // namespace labelsmooth
