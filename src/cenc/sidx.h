// The generated sidx: one reference per group of segments. Source: ISO/IEC 14496-12 §8.16.3.
#pragma once
#include "cenc/plan.h"

enum { SIDX_HEAD_MAX = 40, SIDX_REF_LEN = 12 };

// sidx_layout fills sidx_group and sidx_len of `p` from its index and segments.
void sidx_layout(struct plan *p);

// sidx_check proves that every reference fits its fields. Errors: ERR_LIMIT.
MUST_USE enum err sidx_check(const struct plan *p, struct diag *diag);

// sidx_head_write returns the bytes before the first reference; sidx_ref_write writes reference `ref`.
uint32_t sidx_head_write(uint8_t out[SIDX_HEAD_MAX], const struct plan *p);
void sidx_ref_write(uint8_t out[SIDX_REF_LEN], const struct plan *p, uint32_t ref);
