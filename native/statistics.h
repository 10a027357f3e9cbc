// The statistics of rows, and the gradient by the logits given that by the statistics.

#pragma once

#include <atomic>

#include "columns.h"
#include "row.h"

namespace labelsmooth {

struct Forward {
    const Problem& p;
    void* statistics;  // 10 x rows, in the order of RowStatistics
    std::atomic<int64_t> bad{-1};
};

template <typename Z>
INLINE void forward_tiles(Forward& call, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Vectors<R> vectors(p, 0);
    const R of_mass = R(vectors.prior ? 1.0 : 1.0 / double(p.classes));
    for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
        TileSums<R> s;
        sums_of(s, z, n, p.classes, stride, vectors);
        R* out = static_cast<R*>(call.statistics) + i;
        for (int64_t j = 0; j < n; ++j) {
            R all[10] = {};  // lse, target_z, prior_z, hinge, model_z, target_mass, prior_mass, valid_mass, z_max, slope
            if (!p.counted || p.counted[i + j]) {
                const int64_t y = p.target[i + j];
                if (y != absent && (y < 0 || y >= p.classes)) {
                    call.bad.store(i + j, std::memory_order_relaxed);
                    continue;
                }
                all[0] = s.lse[j];
                if (y != absent) {
                    all[5] = vectors.weight_at(y);
                    all[1] = product(all[5], one(z[y * stride + j]) - s.max[j]);
                }
                const R mass = of_mass * s.mass[j];
                const bool sizeable = !(mass < std::numeric_limits<R>::min());  // so that it can be divided by
                all[2] = sizeable ? s.dot[j] : all[1];
                all[6] = sizeable ? s.weighted[j] / s.mass[j] : all[5];
                all[7] = sizeable ? mass : R(0);
                all[8] = s.max[j];
            }
            for (int64_t k = 0; k < 10; ++k) out[k * p.rows + j] = all[k];
        }
    });
}

template <typename Z>
INLINE void forward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    Forward& call = *static_cast<Forward*>(context);
    const Problem& p = call.p;
    if (in_tiles(p)) return forward_tiles<Z>(call, begin, end);
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
INLINE void backward_tiles(const Backward& call, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Problem& p = call.p;
    const Vectors<R> vectors(p, 0);
    const R of_mass = R(vectors.prior ? 1 : p.classes);
    for_each_tile<Z>(p, begin, end, [&](int64_t i, int64_t n, const Z* z, int64_t stride) __attribute__((always_inline)) {
        const R* statistics = static_cast<const R*>(call.statistics) + i;
        const R* grad = static_cast<const R*>(call.grad) + i;
        TileCoefficients<R> c;
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) {
            const R mass = of_mass * statistics[7 * p.rows + j], by_target = grad[p.rows + j], by_prior = grad[2 * p.rows + j];
            c.max[j] = statistics[8 * p.rows + j];
            c.of_exp[j] = grad[j] * exp_nonpositive(-statistics[j]);
            c.of_prior[j] = mass != 0 ? by_prior / mass : R(0);
            c.of_target[j] = mass != 0 ? by_target : by_target + by_prior;
        }
        for (int64_t j = 0; j < n; ++j) {
            c.y[j] = p.target[i + j] == absent ? c.none : R(p.target[i + j]);
            if (p.counted && !p.counted[i + j]) c.y[j] = c.dead;
        }
        write(p, call.out, i, n, z, stride, vectors, c);
    });
}

template <typename Z>
INLINE void backward_rows(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Backward& call = *static_cast<Backward*>(context);
    const Problem& p = call.p;
    if (in_tiles(p)) return backward_tiles<Z>(call, begin, end);
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

}  // namespace labelsmooth
