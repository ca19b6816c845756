"""Every registered encoder keeps the contract; a new one is found by discovery."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featbank.encoders import Encoder, list_encoders, make_encoder
from featbank.workers import one_opencv_thread
from tests.support.encoder_contract import EncoderContract


@pytest.mark.parametrize("encoder", [spec.name for spec in list_encoders()], indirect=True)
class TestEveryEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, request: pytest.FixtureRequest) -> Encoder:
        return make_encoder(request.param)

    def test_threads_of_the_libraries_change_nothing(self, encoder: Encoder, crops: np.ndarray) -> None:
        with threadpool_limits(1), one_opencv_thread():
            one = encoder.encode(crops)
        with threadpool_limits(2):
            two = encoder.encode(crops)
        self.assert_same(one, two)
