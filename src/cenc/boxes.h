// Writers for the boxes that protection adds. Sizes are constants of cenc/plan.h.
#pragma once
#include "cenc/plan.h"

// sinf_write fills out[0 .. its length) with sinf{frma, schm, schi{tenc}} and returns that length; 0 when clear.
// Source: ISO/IEC 14496-12 §8.12, 23001-7 §8.2 (tenc version 0 for cenc, 1 for cbcs: Safari insists).
uint32_t sinf_write(uint8_t out[SINF_LEN_MAX], const struct protection *prot, uint32_t format);

// saiz_write and saio_write: constant auxiliary size iv_len, `iv_off` bytes from the moof to the first IV.
// Source: ISO/IEC 14496-12 §8.7.8, §8.7.9.
void saiz_write(uint8_t out[SAIZ_LEN], uint32_t num_samples, uint32_t iv_len);
void saio_write(uint8_t out[SAIO_LEN], uint32_t iv_off);

// senc_head_write writes senc without the IVs that follow it: iv_len bytes for each sample, 0 for a count-only one.
// Source: ISO/IEC 23001-7 §7.2.
void senc_head_write(uint8_t out[SENC_HEAD_LEN], uint32_t num_samples, uint32_t iv_len);
