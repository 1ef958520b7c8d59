/**
 * matmul_f64.c: the product in double, as plainly as it can be said: for tests and oracles.
 */
#include "linear/matmul.h"

#include "par/context.h"

typedef struct product {
    const attn_matmul_call *call;
    int64_t rows; /* of all matrices */
    int64_t step; /* rows of a task */
} product;

static void row_times_matrix(const attn_matmul_call *call, const double *a, const double *b,
                             double *c)
{
    const double *bias = call->bias;
    for (int64_t j = 0; j < call->n; j++) {
        c[j] = (call->accumulate ? c[j] : 0.0) + (bias ? bias[j] : 0.0);
    }
    for (int64_t i = 0; i < call->k; i++) {
        const double *row = b + i * call->b_k;
        double x = a[i * call->a_k];
        if (call->b_column == 1) {
            for (int64_t j = 0; j < call->n; j++) {
                c[j] += x * row[j];
            }
        } else {
            for (int64_t j = 0; j < call->n; j++) {
                c[j] += x * row[j * call->b_column];
            }
        }
    }
}

static void task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    const attn_matmul_call *call = p->call;
    int64_t end = (index + 1) * p->step < p->rows ? (index + 1) * p->step : p->rows;
    (void)worker;
    for (int64_t r = index * p->step; r < end; r++) {
        int64_t row = r % call->m, matrix = r / call->m;
        int64_t y = matrix % call->lead[1], x = matrix / call->lead[1];
        row_times_matrix(
            call,
            (const double *)call->a + x * call->a_lead[0] + y * call->a_lead[1] + row * call->a_row,
            (const double *)call->b + x * call->b_lead[0] + y * call->b_lead[1],
            (double *)call->c + x * call->c_lead[0] + y * call->c_lead[1] + row * call->c_row);
    }
}

void attn_matmul_f64(attn_context *context, const attn_matmul_call *call)
{
    /* Multiply-adds below which waking a thread costs more than it saves. */
    const double piece = 50e3;
    double row = (double)call->n * (double)(call->k + 1);
    product p = {.call = call, .rows = call->lead[0] * call->lead[1] * call->m};
    p.step = row >= piece ? 1 : (int64_t)(piece / row) + 1;
    attn_context_run(context, (p.rows - 1) / p.step + 1, false, task, &p);
}
