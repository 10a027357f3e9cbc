// The kernels of one instruction set: compiled once for each, with LABELSMOOTH_ISA as its namespace.

#include "kernels.h"

#include "statistics.h"
#include "uniform.h"

#define FOR_EACH_TYPE(function) {function<float>, function<double>, function<bfloat16>, function<float16>}

namespace labelsmooth {

const Kernels LABELSMOOTH_ISA::kernels = {
    FOR_EACH_TYPE(forward),
    FOR_EACH_TYPE(backward),
    FOR_EACH_TYPE(uniform_forward),
    FOR_EACH_TYPE(uniform_backward),
    {total<float>, total<double>, total<float>, total<float>},
};

}  // namespace labelsmooth
