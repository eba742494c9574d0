"""English words with a role: in sentences, for pictures, and for kinds of what is seen."""

from captioner.lstm.vocabulary import tokenize

# Without those that can end a sentence ("outside", "away", "it").
FUNCTION_WORDS = frozenset(
    tokenize(
        """
        a an the this these every no some his her its their my our your 's
        and or but nor as if than that because while whilst when where which who whose
        about above across after against along alongside among amongst around at atop before
        behind beneath beside besides between by down during for from in inside into near next of
        off on onto over past since than through to toward towards under until up upon via with
        within without am is are was were be been being has have had having do does did can could
        will would he she they we i very too so just both each
        """
    )
)
DEPICTIONS = frozenset(
    tokenize("image images photo photos photograph photographs picture pictures shot")
)
NUMBERS = frozenset(tokenize("two three four five several many some"))
ADJECTIVES = frozenset(
    tokenize(
        """
        one other another small little big large tall young old
        red yellow green blue brown black white grey gray orange pink tan
        """
    )
)
_KINDS = (
    ("animal", "cat dog puppy kitten horse cow goat bear zebra giraffe elephant bird duck"),
    ("animals", "cats dogs puppies horses cows sheep goats bears zebras giraffes elephants birds"),
    ("vehicle", "car truck bus train van taxi"),
    ("vehicles", "cars trucks buses trains vans taxis"),
    ("child", "boy girl"),
    ("children", "boys girls"),
    ("person", "man woman"),
    ("people", "men women"),
)
KINDS = {general: tuple(kinds.split()) for general, kinds in _KINDS}  # what a general word may mean
PLURALS = frozenset({"animals", "vehicles", "children", "people"})
SINGULAR = frozenset(tokenize("a an this every each is was has does"))  # not beside a plural
