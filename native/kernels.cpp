// The kernels of one instruction set; compiled once for each, with LABELSMOOTH_ISA as the namespace.

#include "kernels.h"

#include "at_once.h"
#include "losses.h"
#include "statistics.h"
#include "uniform.h"

namespace labelsmooth {
namespace {

template <typename... Z>
constexpr Kernels kernels_of() {
    return {
        {sizeof(Z)...},
        {forward<Z>...},
        {backward<Z>...},
        {uniform_forward<Z>...},
        {uniform_backward<Z>...},
        {uniform_both<Z>...},
        {losses<Z>...},
        {gradient<Z>...},
        {at_once<Z>...},
        {total<Real<Z>>...},
    };
}

}  // namespace

const Kernels LABELSMOOTH_ISA::kernels = kernels_of<LABELSMOOTH_DTYPES>();

}  // namespace labelsmooth
