"""A simulation of two mice in an arena, seen from above.

It is no model of real mice. It has what the self-supervised tasks ask about: the two animals react
to each other (group, shift), swing their heads at a steady rate (speed), and over a session grow
calmer, less stretched, and move from the arena's entrance to its nest (order). All recordings are
stepped together, one frame at a time.
"""

from dataclasses import dataclass

import numpy as np

INDIVIDUALS = ("resident", "intruder")
KEYPOINTS = ("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail")
STATES = ("approach", "chase", "side_by_side", "apart")
APPROACH, CHASE, SIDE_BY_SIDE, APART = range(4)
FPS = 30
ARENA_PX = (1024.0, 570.0)

BODY_PX = np.array(
    [[52, 0], [30, 13], [30, -13], [20, 0], [-22, 17], [-22, -17], [-48, 0]], dtype=float
)
"""Keypoints of a standing mouse, (along, across) its heading, from the middle of its body."""
SWAY_PX = np.array([14, 9, 9, 6, 2, 2, 5], dtype=float)
"""How far the head and body swing to the sides, by keypoint."""
SWAY_HZ = 3.0

NEXT_STATE = np.array(
    [[0.0, 0.5, 0.5, 0.0], [0.0, 0.2, 0.3, 0.5], [0.0, 0.4, 0.2, 0.4], [1, 0, 0, 0]]
)
"""Probability of the state after each state."""
LASTS_S = ((1.0, 3.0), (2.0, 5.0), (2.0, 5.0), (1.5, 3.0))
"""Shortest and longest duration of each state; an approach also ends at contact."""
SPEED_PX = ((7.0, 1.5), (7.5, 8.0), (5.0, 5.0), (3.0, 3.0))
"""Speed of resident and intruder in each state, pixels per frame."""

CONTACT_PX, BESIDE_PX, MARGIN_PX = 100.0, 55.0, 60.0
HOMING = 0.1
"""How strongly a mouse that goes its own way turns to where it feels at home, per frame."""
MISSING = 0.005
"""Share of the points that the simulated tracker loses."""


@dataclass(frozen=True)
class Simulation:
    """One simulated recording.

    Parameters
    ----------
    position : ndarray
        (frames, 2 axes, keypoints, individuals) in pixels; a lost point is NaN.
    state : ndarray
        (frames,), index into STATES.
    """

    position: np.ndarray
    state: np.ndarray


def simulate(lengths: list[int], seed: int) -> list[Simulation]:
    """Simulate recordings of the given numbers of frames."""
    rng = np.random.default_rng(seed)
    count, longest = len(lengths), max(lengths)
    pair = _Pair(rng, count)
    size = rng.uniform(0.9, 1.1, (count, 2)) * (1.08, 0.95)  # residents are the larger ones
    rate = SWAY_HZ * rng.uniform(0.97, 1.03, (count, 2))
    phase = rng.uniform(0, 2 * np.pi, (count, 2))
    position = np.empty((longest, count, 2, len(KEYPOINTS), 2))
    state = np.empty((longest, count), dtype=np.int64)
    for frame in range(longest):
        session = np.minimum(frame / np.array(lengths), 1.0)
        pair.step(session)
        phase += 2 * np.pi * rate / FPS
        stretch = size * (1.2 - 0.4 * session)[:, None]
        position[frame] = _keypoints(pair, size, stretch, np.sin(phase))
        state[frame] = pair.state
    position += rng.normal(0, 0.8, position.shape)  # jitter of the tracker
    position = np.clip(position, 0, ARENA_PX)
    position[rng.random(position.shape[:-1]) < MISSING] = np.nan
    return [
        Simulation(position[:length, number].transpose(0, 3, 2, 1), state[:length, number])
        for number, length in enumerate(lengths)
    ]


class _Pair:
    """Where the two mice of every recording are, and what they are doing."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self.rng = rng
        self.place = rng.uniform(0.2, 0.8, (count, 2, 2)) * ARENA_PX
        self.heading = rng.uniform(-np.pi, np.pi, (count, 2))
        self.turn = np.zeros((count, 2))
        self.state = rng.integers(len(STATES), size=count)
        self.left = np.zeros(count)
        self.side = rng.choice([-1.0, 1.0], count)
        self._enter(np.ones(count, dtype=bool))

    def step(self, session: np.ndarray) -> None:
        """Move on by one frame; `session` (recordings,) is the share of the session gone by."""
        towards = self.place[:, 1] - self.place[:, 0]
        distance = np.linalg.norm(towards, axis=-1)
        self.left -= 1
        over = (self.left <= 0) | ((self.state == APPROACH) & (distance < CONTACT_PX))
        self._enter(over)
        self.turn = 0.9 * self.turn + self.rng.normal(0, 0.02, self.turn.shape)
        home = np.stack([ARENA_PX[0] * (0.2 + 0.6 * session), 0 * session + ARENA_PX[1] / 2], -1)
        homewards = home[:, None] - self.place
        bearing_home = np.arctan2(homewards[..., 1], homewards[..., 0])
        wanted = self.heading + self.turn + HOMING * np.sin(bearing_home - self.heading)
        speed = np.array(SPEED_PX)[self.state]

        follows = np.isin(self.state, (APPROACH, CHASE))
        bearing = np.arctan2(towards[:, 1], towards[:, 0])
        wanted[:, 0] = np.where(follows, bearing, wanted[:, 0])
        chases = self.state == CHASE
        speed[:, 0] += np.where(chases, np.clip(0.06 * (distance - 130), -5, 4), 0)
        flees = (self.state == APART) & (distance < 300)
        wanted[:, 1] = np.where(flees, bearing, wanted[:, 1])

        side_by_side = self.state == SIDE_BY_SIDE
        across = self.heading[:, 0] + self.side * np.pi / 2
        goal = self.place[:, 0] + BESIDE_PX * np.stack([np.cos(across), np.sin(across)], -1)
        ahead = np.stack([np.cos(self.heading[:, 0]), np.sin(self.heading[:, 0])], -1)
        error = goal + 25 * ahead - self.place[:, 1]
        wanted[:, 1] = np.where(side_by_side, np.arctan2(error[:, 1], error[:, 0]), wanted[:, 1])
        gap = np.sum((goal - self.place[:, 1]) * ahead, axis=-1)
        speed[:, 1] += np.where(side_by_side, np.clip(0.1 * gap, -4, 5), 0)

        wanted = self._off_the_walls(wanted)
        change = np.angle(np.exp(1j * (wanted - self.heading)))
        self.heading = self.heading + np.clip(change, -0.15, 0.15)
        moved = (speed * (1.25 - 0.5 * session)[:, None])[..., None]
        way = np.stack([np.cos(self.heading), np.sin(self.heading)], -1)
        self.place = np.clip(self.place + moved * way, MARGIN_PX, np.array(ARENA_PX) - MARGIN_PX)

    def _enter(self, over: np.ndarray) -> None:
        """Draw the next state, and its length, where one is over."""
        chance = NEXT_STATE[self.state].cumsum(axis=1)
        following = (self.rng.random((len(over), 1)) > chance).sum(axis=1)
        self.state = np.where(over, np.minimum(following, len(STATES) - 1), self.state)
        shortest, longest = np.array(LASTS_S).T[:, self.state] * FPS
        self.left = np.where(over, self.rng.uniform(shortest, longest), self.left)
        self.side = np.where(over, self.rng.choice([-1.0, 1.0], len(over)), self.side)

    def _off_the_walls(self, wanted: np.ndarray) -> np.ndarray:
        """Turn towards the middle where a mouse walks into a wall."""
        way = np.stack([np.cos(wanted), np.sin(wanted)], -1)
        soon = self.place + 70 * way
        outside = (soon < MARGIN_PX) | (soon > np.array(ARENA_PX) - MARGIN_PX)
        inwards = np.array(ARENA_PX) / 2 - self.place
        centre = np.arctan2(inwards[..., 1], inwards[..., 0])
        return np.where(outside.any(axis=-1), centre, wanted)


def _keypoints(pair: _Pair, size: np.ndarray, stretch: np.ndarray, swing: np.ndarray) -> np.ndarray:
    """Place the keypoints: (recordings, individuals, keypoints, 2 axes) in pixels."""
    along = BODY_PX[:, 0] * stretch[..., None]
    across = BODY_PX[:, 1] * size[..., None] + SWAY_PX * swing[..., None]
    cos, sin = np.cos(pair.heading)[..., None], np.sin(pair.heading)[..., None]
    offset = np.stack([along * cos - across * sin, along * sin + across * cos], -1)
    return pair.place[:, :, None] + offset
