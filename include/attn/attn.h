/**
 * attn/attn.h: everything of libattn. exact attention for CPUs: views, contexts, attn_sdpa, masks, KV caches,
 * multi-head attention; linear.h, ops.h and train_ops.h are the advanced level and are included here as well.
 */
#ifndef ATTN_ATTN_H
#define ATTN_ATTN_H

#include <attn/attention.h>
#include <attn/base.h>
#include <attn/context.h>
#include <attn/kv_cache.h>
#include <attn/linear.h>
#include <attn/mask.h>
#include <attn/multihead.h>
#include <attn/ops.h>
#include <attn/train_ops.h>
#include <attn/view.h>

#endif
