"""Names the weight-free encoders and the place where each is built; imports no numerical library."""

from __future__ import annotations

from featbank.encoders.spec import EncoderSpec

LICENCE = "Apache-2.0"

CATALOGUE = (
    (
        EncoderSpec(
            name="classic:nss",
            role="quality",
            title="Natural-scene statistics, sharpness, noise, blocking, exposure and colour of native pixels",
            reference="Mittal, Moorthy and Bovik 2012 (BRISQUE); Crete et al. 2007; Immerkaer 1996; Field 1987",
            licence=LICENCE,
            weights="none",
            n_features=119,
        ),
        "featbank.encoders.classic.nss:NssEncoder",
    ),
    (
        EncoderSpec(
            name="classic:layout",
            role="content",
            title="Colour layout and gradient-orientation layout",
            reference="Kasutani and Yamada 2001 (MPEG-7 colour layout); Dalal and Triggs 2005 (HOG)",
            licence=LICENCE,
            weights="none",
            n_features=185,
        ),
        "featbank.encoders.classic.layout:LayoutEncoder",
    ),
    (
        EncoderSpec(
            name="classic:gist",
            role="scene",
            title="Spatial envelope: Gabor energies at 4 scales and 8 orientations on a 4 x 4 grid",
            reference="Oliva and Torralba 2001 (GIST)",
            licence=LICENCE,
            weights="none",
            n_features=512,
        ),
        "featbank.encoders.classic.gist:GistEncoder",
    ),
    (
        EncoderSpec(
            name="classic:keypoint",
            role="keypoint",
            title="Corner, blob and edge statistics at four pyramid levels",
            reference="Shi and Tomasi 1994; Lowe 2004; Zhuo and Sim 2011",
            licence=LICENCE,
            weights="none",
            n_features=108,
        ),
        "featbank.encoders.classic.keypoint:KeypointEncoder",
    ),
)
