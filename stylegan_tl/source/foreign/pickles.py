"""A pickle machine that builds plain values and calls nothing.

The pickle language is a stack machine whose GLOBAL and REDUCE operations import and call anything.
Here GLOBAL looks a name up in a table and REDUCE asks that table for an inert value; a name that
is not in it ends the reading. Only plain values are keys, so nothing hashes or compares deeply.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from stylegan_tl.source.foreign.values import Budget, Name, Record
from stylegan_tl.source.portable import IncompleteError, SourceError

__all__ = ["Make", "key_of", "read_pickle"]

Make = Callable[[tuple, Budget], Any]
"""What a name does when the file calls it with arguments: returns an inert value."""

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(
    file: BinaryIO,
    names: Mapping[str, Make | None],
    budget: Budget,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from `file`, which is left behind its end.

    `names`: what may be named, and what calling it makes (None: it may not be called).
    `persistent`: turns a persistent id into a value. Raises SourceError, or whatever a damaged
    pickle leads to.
    """
    budget.pickle()
    machine = _Machine(names, budget, persistent)
    for name, argument in _operations(file):
        if name == "STOP":
            return machine.pop()
        budget.step()
        machine.run(name, argument)
    raise SourceError("a pickle without an end")


def _operations(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Name and argument of each; IncompleteError where the file ends within one or without STOP."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            yield opcode.name, argument
    except ValueError as error:
        if file.read(1):
            raise
        raise IncompleteError(str(error)) from error


class _Machine:
    """The stack and the memo, and one method per operation."""

    def __init__(
        self,
        names: Mapping[str, Make | None],
        budget: Budget,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.names, self.budget, self.persistent = names, budget, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """One operation."""
        if name in _VALUES:
            self.stack.append(self._value(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        else:
            handler = getattr(self, f"_{name.lower()}", None)
            if handler is None:
                raise SourceError(f"the pickle operation {name} is not read")
            handler(argument)

    def pop(self) -> Any:
        """The top of the stack, which is a value."""
        value = self.stack.pop()
        if value is _MARK:
            raise SourceError("a damaged pickle: a mark where a value should be")
        return value

    def _items(self) -> list[Any]:
        """All values down to the last mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise SourceError("a damaged pickle: no mark")

    def _value(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > self.budget.limits.integer_bits:
            raise SourceError(f"a whole number of {value.bit_length():,} bits")
        return bytes(value) if isinstance(value, bytearray) else value

    # -- structure ---------------------------------------------------------------------------

    def _proto(self, _: int) -> None:
        pass

    _frame = _proto

    def _mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self._items()

    def _dup(self, _: None) -> None:
        self.stack.append(self._top())

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self._top()

    def _put(self, index: int) -> None:
        self.memo[index] = self._top()

    _binput = _long_binput = _put

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise SourceError(f"a damaged pickle: no value {index} in the memo")
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise SourceError("a damaged pickle: the stack is empty")
        return self.stack[-1]

    # -- containers --------------------------------------------------------------------------

    def _list(self, _: None) -> None:
        self.stack.append(self._items())

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._items()))

    def _dict(self, _: None) -> None:
        items, made = self._items(), {}
        self._fill(made, items)
        self.stack.append(made)

    def _append(self, _: None) -> None:
        value = self.pop()
        self._of(list).append(value)

    def _appends(self, _: None) -> None:
        items = self._items()
        self._of(list).extend(items)

    def _setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self._fill(self._of(dict), [key, value])

    def _setitems(self, _: None) -> None:
        items = self._items()
        self._fill(self._of(dict), items)

    def _additems(self, _: None) -> None:
        items = self._items()
        self._of(set).update(map(key_of, items))

    def _frozenset(self, _: None) -> None:
        self.stack.append(frozenset(map(key_of, self._items())))

    def _of(self, kind: type) -> Any:
        if not isinstance(self._top(), kind):
            raise SourceError(f"a damaged pickle: items for a {kind.__name__} that is none")
        return self._top()

    def _fill(self, made: dict, items: list[Any]) -> None:
        if len(items) % 2:
            raise SourceError("a damaged pickle: a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            made[key_of(key)] = value

    # -- names and what is made of them ------------------------------------------------------

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._named(module, name)

    def _stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise SourceError("a damaged pickle: a name that is no text")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        if f"{module}.{name}" not in self.names:
            raise SourceError(f"it asks for {module[:60]}.{name[:60]}, which no model needs")
        self.stack.append(Name(f"{module}.{name}"))

    def _reduce(self, _: None) -> None:
        arguments, what = self.pop(), self.pop()
        self._make(what, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        keywords, arguments, what = self.pop(), self.pop(), self.pop()
        if keywords:
            raise SourceError("an object with keyword arguments is not read")
        self._make(what, arguments)

    def _obj(self, _: None) -> None:
        what, *arguments = self._items()
        self._make(what, tuple(arguments))

    def _inst(self, argument: str) -> None:
        arguments = tuple(self._items())
        self._global(argument)
        self._make(self.pop(), arguments)

    def _make(self, what: Any, arguments: Any) -> None:
        make = self.names.get(what.name) if isinstance(what, Name) else None
        if make is None or not isinstance(arguments, tuple):
            raise SourceError(f"it calls {getattr(what, 'name', 'a value')}, which is not read")
        self.stack.append(make(arguments, self.budget))

    def _build(self, _: None) -> None:
        state = self.pop()
        made = self._top()
        if isinstance(made, Record) and made.state is None:
            made.state = state
        elif not isinstance(made, dict):  # a dictionary with attributes is read without them
            raise SourceError("it sets the state of a value that has none")

    def _binpersid(self, _: None) -> None:
        if self.persistent is None:
            raise SourceError("it refers to a storage outside of the pickle")
        self.stack.append(self.persistent(self.pop()))


def key_of(value: Any) -> Any:
    """A plain key: its hash costs nothing and cannot be chosen to collide.

    A tuple's can, if there are numbers in it: it is the same in every process.
    """
    small = isinstance(value, int) and value.bit_length() <= 64
    if small or isinstance(value, str | bytes | float | bool | None):
        return value
    raise SourceError(f"a {type(value).__name__} as a key")
