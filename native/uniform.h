// The plain loss in one pass: class indices, a uniform prior, one strength for all rows, a sum or mean.

#pragma once

#include "columns.h"
#include "row.h"
#include "tables.h"

namespace labelsmooth {
namespace {

// The coefficients of exp and of the target in the gradient; equal if the target is the only class.
struct Share {
    double target, prior;

    explicit Share(const Uniform& call) : target(call.scale * (1 - call.eps)), prior(call.scale * call.eps) {}
    double of_exp() const { return target + prior; }
    // If no class is valid, lse is NaN, and so is the gradient of the whole row.
    double at_target(double z, double valid) const { return z == -inf<double> ? target : target + prior / valid; }
};

// Returns whether the targets are in range.
template <typename Z>
INLINE bool forward_tile(const Uniform& call, int64_t i, int64_t n, const Z* z, int64_t stride) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const R of_hard = R(1 - call.eps), of_spread = R(call.eps);
    R below[tile];  // the target's logit minus the largest
    bool live[tile];
    TileSums<R> s;
    sums_of(s, z, n, p.classes, stride, Vectors<R>(nullptr, nullptr, nullptr));
    for (int64_t j = 0; j < n; ++j) {
        const int64_t y = p.target[i + j];
        live[j] = y != call.ignore_index;
        below[j] = 0;
        if (!live[j]) continue;
        if (y < 0 || y >= p.classes) return false;
        below[j] = one(z[y * stride + j]) - s.max[j];
    }
    const Saved<R*> saved = by_name<Saved>(static_cast<R*>(call.saved) + i, p.rows);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R hard = s.lse[j] - below[j], spread = s.lse[j] - s.dot[j];
        saved.lse[j] = live[j] ? s.lse[j] : R(0);
        saved.z_max[j] = live[j] ? s.max[j] : R(0);
        saved.valid[j] = live[j] ? s.mass[j] : R(0);
        saved.loss[j] = live[j] ? product(of_hard, hard) + product(of_spread, spread) : R(0);
        saved.nll[j] = live[j] ? hard : R(0);
    }
    return true;
}

template <typename Z>
INLINE void backward_tile(const Uniform& call, const Share& share, int64_t i, int64_t n, const Z* z, int64_t stride) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Saved<const R*> saved = by_name<Saved>(static_cast<const R*>(call.saved) + i, p.rows);
    TileCoefficients<R> c;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        c.max[j] = saved.z_max[j];
        c.of_exp[j] = R(share.of_exp()) * exp_nonpositive(-saved.lse[j]);
        c.of_prior[j] = R(-share.prior) / saved.valid[j];
    }
    for (int64_t j = 0; j < n; ++j) {
        const int64_t y = p.target[i + j];
        const bool live = y != call.ignore_index;
        c.y[j] = live ? R(y) : c.dead;
        if (live) c.at_target[j] = R(-share.at_target(one(z[y * stride + j]), saved.valid[j]));
    }
    write(p, call.out, i, n, z, stride, Vectors<R>(nullptr, nullptr, nullptr), c);
}

template <typename Z>
INLINE bool forward_row(const Uniform& call, int64_t i, Real<Z>* kept) {
    using R = Real<Z>;
    const Problem& p = call.p;
    Saved<R> found{};
    const int64_t y = p.target[i];
    if (y != call.ignore_index) {
        if (y < 0 || y >= p.classes) return false;
        const Z* z = row_of<Z>(p, i);
        const Sums<R> s = sums_of(z, p.classes, Vectors<R>(nullptr, nullptr, nullptr), Bend<R>(p), -1, kept);
        const double log_sum = std::log(s.exp);
        const double hard = log_sum - (double(one(z[y])) - double(s.max));
        const double spread = log_sum - s.dot / s.mass;
        found.lse = R(log_sum);
        found.z_max = s.max;
        found.valid = R(s.mass);
        found.nll = R(hard);
        found.loss = R(product(1 - call.eps, hard) + product(call.eps, spread));
    }
    store(found, static_cast<R*>(call.saved) + i, p.rows);
    return true;
}

template <typename Z>
INLINE void backward_row(const Uniform& call, const Share& share, int64_t i, const Real<Z>* kept) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Saved<const R*> saved = by_name<Saved>(static_cast<const R*>(call.saved) + i, p.rows);
    Z* out = static_cast<Z*>(call.out) + i * p.classes;
    const int64_t y = p.target[i];
    if (y == call.ignore_index) {
        for (int64_t k = 0; k < p.classes; ++k) out[k] = Z{};
        return;
    }
    const Z* z = row_of<Z>(p, i);
    const R z_max = *saved.z_max;
    const double valid = *saved.valid;
    const Coefficients<R> c{
        z_max,
        R(share.of_exp() * std::exp(-double(*saved.lse))),
        R(-share.prior / valid),
        0,
        0,
        0,
    };
    const R z_y = one(z[y]);
    const R at_target = c.of_exp * exp_nonpositive(z_y - z_max) - R(share.at_target(z_y, valid));
    write<false, false, false>(out, z, p.classes, Vectors<R>(nullptr, nullptr, nullptr), c, Bend<R>(p), kept);
    put(at_target, out[y]);
}

// Forward, backward or both; with both, a row is still in the cache when its gradient is computed.
template <typename Z, bool forward, bool backward>
INLINE void uniform_rows(Uniform& call, int64_t begin, int64_t end) {
    const Problem& p = call.p;
    const Share share(call);
    const auto fail = [&] { call.bad.store(true, std::memory_order_relaxed); };
    if (in_tiles(p)) {
        for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
            if (forward && !forward_tile(call, i, n, z, stride)) return fail();
            if (backward) backward_tile(call, share, i, n, z, stride);
        });
        return;
    }
    for (int64_t i = begin; i < end; ++i) {
        Real<Z>* kept = forward && backward ? place_of<Z>(p, call.out, i, 1) : nullptr;
        if (forward && !forward_row<Z>(call, i, kept)) return fail();
        if (backward) backward_row<Z>(call, share, i, kept);
    }
}

template <typename Z>
void uniform_forward(void* context, int64_t begin, int64_t end) {
    uniform_rows<Z, true, false>(*static_cast<Uniform*>(context), begin, end);
}

template <typename Z>
void uniform_backward(void* context, int64_t begin, int64_t end) {
    uniform_rows<Z, false, true>(*static_cast<Uniform*>(context), begin, end);
}

template <typename Z>
void uniform_both(void* context, int64_t begin, int64_t end) {
    uniform_rows<Z, true, true>(*static_cast<Uniform*>(context), begin, end);
}

template <typename R>
void total(const Uniform& call, double* result) {
    const int64_t rows = call.p.rows;
    const Saved<const R*> saved = by_name<Saved>(static_cast<const R*>(call.saved), rows);
    double loss = 0, nll = 0;
    int64_t counted = 0;
#pragma omp simd reduction(+ : loss, nll, counted)
    for (int64_t i = 0; i < rows; ++i) {
        loss += saved.loss[i];
        nll += saved.nll[i];
        counted += call.p.target[i] != call.ignore_index;
    }
    result[0] = loss;
    result[1] = nll;
    result[2] = double(counted);
}

}  // namespace
}  // namespace labelsmooth
