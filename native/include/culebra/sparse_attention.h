/* Attention to a part of the keys. As in attention.h: query head h uses KV head h / (Hq/Hkv); row i of a sequence stands at
 * position i + Lk - Lq (bottom-right); lse is the natural log; a row that sees nothing gives o = 0, lse = -inf. scale 0 = D^-1/2. */
#ifndef CULEBRA_SPARSE_ATTENTION_H
#define CULEBRA_SPARSE_ATTENTION_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif
