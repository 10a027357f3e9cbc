// Losses that are linear in the statistics of a row, and their gradient with respect to the statistics.

#pragma once

#include "row.h"
#include "tables.h"

namespace labelsmooth {
namespace {

template <typename R>
INLINE R times(R a, R x) {  // 0 * inf = 0, and 0 * NaN = NaN
    return a == 0 && (x == inf<R> || x == -inf<R>) ? R(0) : a * x;
}

template <typename R>
struct LinearRows {
    const Terms& t;
    const R* scale;
    Statistics<const R*> s;

    explicit LinearRows(const Losses& call)
        : t(call.t),
          scale(static_cast<const R*>(t.scale)),
          s(by_name<Statistics>(static_cast<const R*>(call.statistics), t.rows)) {}

    R factor(int64_t term, int64_t i) const {
        const R* each = static_cast<const R*>(t.each[term]);
        return each ? each[i] : R(t.factor[term]);
    }
    R z_loss_mass(int64_t i) const { return t.z_by_target ? s.target_mass[i] : R(1); }
};

template <typename Z>
void losses(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Losses& call = *static_cast<Losses*>(context);
    const LinearRows<R> rows(call);
    const auto& [t, scale, s] = rows;
    for (int64_t i = begin; i < end; ++i) {
        R loss = times(rows.factor(Factors::nll, i), s.target_mass[i] * s.lse[i] - s.target_z[i]);
        loss += times(rows.factor(Factors::prior, i), s.prior_mass[i] * s.lse[i] - s.prior_z[i]);
        loss += times(rows.factor(Factors::hinge, i), s.hinge[i]);
        loss += times(rows.factor(Factors::entropy, i), s.lse[i] - s.model_z[i]);
        if (t.z_loss != 0) {
            const R lse = s.lse[i] + s.z_max[i];
            loss += R(t.z_loss) * times(rows.z_loss_mass(i), lse * lse);
        }
        static_cast<R*>(call.out)[i] = times(scale[i], loss);
    }
}

template <typename Z>
void gradient(void* context, int64_t begin, int64_t end) {
    using R = Real<Z>;
    const Losses& call = *static_cast<Losses*>(context);
    const LinearRows<R> rows(call);
    const auto& [t, scale, s] = rows;
    const Gradient<R*> by = by_name<Gradient>(static_cast<R*>(call.out), t.rows);
    for (int64_t i = begin; i < end; ++i) {
        const R target = scale[i] * rows.factor(Factors::nll, i), prior = scale[i] * rows.factor(Factors::prior, i);
        const R entropy = scale[i] * rows.factor(Factors::entropy, i);
        // The products are rounded like the terms that they have to cancel exactly where one class is left.
        R lse = rounded(target * s.target_mass[i]) + rounded(prior * s.prior_mass[i]) + entropy;
        if (t.z_loss != 0) {
            lse += times(scale[i] * R(t.z_loss) * rows.z_loss_mass(i), 2 * (s.lse[i] + s.z_max[i]));
        }
        by.lse[i] = lse;
        by.target_z[i] = -target;
        by.prior_z[i] = -prior;
        by.hinge[i] = scale[i] * rows.factor(Factors::hinge, i);
        by.model_z[i] = -entropy;
    }
}

}  // namespace
}  // namespace labelsmooth
