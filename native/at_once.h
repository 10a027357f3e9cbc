// A linear loss and its gradient for blocks of rows, whose logits and exponentials are still in the cache.

#pragma once

#include "losses.h"
#include "statistics.h"

namespace labelsmooth {
namespace {

template <typename Z>
void at_once(void* context, int64_t begin, int64_t end) {
    AtOnce& call = *static_cast<AtOnce*>(context);
    Real<Z>* kept = place_of<Z>(call.forward.p, call.backward.out, begin, end - begin);
    forward_rows<Z>(call.forward, begin, end, kept);
    if (call.forward.bad.load(std::memory_order_relaxed) >= 0) return;
    losses<Z>(&call.losses, begin, end);
    gradient<Z>(&call.gradient, begin, end);
    backward_rows<Z>(call.backward, begin, end, kept);
}

}  // namespace
}  // namespace labelsmooth
