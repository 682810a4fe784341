"""Handscroll: an endless picture, painted patch by patch, the same for everyone who looks.

The algorithm of NUWA-Infinity (arXiv 2207.09814) with random access. Read it in this order:

    geometry    patches, tiles, regions: where things are
    order       Arbitrary Direction Controller: which patch sees which
    context     Nearby Context Pool: what a patch may see
    render      the outer loop over patches
    sample      the inner loop over the tokens of one patch
    decoder     the transformer that both loops ask
    tokenizer   pixels to tokens and back

This package knows nothing of networks, stores, clocks or processes; the services call it.
"""
