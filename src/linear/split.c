/**
 * split.c: pieces of a matrix product for threads. Every output is summed by one thread in one order, so the
 * cut decides about speed alone.
 */
#include "linear/linear.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

attn_linear_split attn_linear_split_make(int threads, int64_t panels, int64_t rows, int64_t tile,
                                         int64_t row_limit, double work, double piece_work)
{
    attn_linear_split split = {.panels = panels, .rows = rows};
    split.row_pieces = ceil_div(rows, row_limit);
    split.row_step = ceil_div(ceil_div(rows, split.row_pieces), tile) * tile;
    split.row_pieces = ceil_div(rows, split.row_step);

    /* Four pieces a thread even out cores that a neighbour slows down; one thread needs no cut. */
    double most = work / piece_work;
    int64_t wanted = threads == 1 ? 1 : ceil_div((int64_t)threads * 4, split.row_pieces);
    if ((double)wanted * (double)split.row_pieces > most) {
        wanted = (int64_t)(most / (double)split.row_pieces);
    }
    wanted = wanted < 1 ? 1 : wanted > panels ? panels : wanted;
    split.panel_step = ceil_div(panels, wanted);
    split.panel_pieces = ceil_div(panels, split.panel_step);
    return split;
}

attn_linear_piece attn_linear_split_at(const attn_linear_split *split, int64_t index)
{
    attn_linear_piece piece;
    piece.p0 = index / split->row_pieces * split->panel_step;
    piece.r0 = index % split->row_pieces * split->row_step;
    piece.p1 = piece.p0 + split->panel_step;
    piece.r1 = piece.r0 + split->row_step;
    piece.p1 = piece.p1 < split->panels ? piece.p1 : split->panels;
    piece.r1 = piece.r1 < split->rows ? piece.r1 : split->rows;
    return piece;
}
