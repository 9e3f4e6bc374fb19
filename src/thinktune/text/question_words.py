"""Words by what they say in a question: nothing, the same as another word, or a negation.

`question_content` reads these tables. English is covered best; of other languages only function
words, negations and labels are known, so fewer rewordings are recognized in them.
"""


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


WORDING = _words(
    # English function words.
    "a an the this that these those it its itself he him his himself she her hers herself they"
    " them their theirs i me my mine we us our ours you your yours who whom whose which what when"
    " where why how there here and or but if then so as of at by for from in into on onto to up"
    " upon with within about over among between through during also too very just only even such"
    " some any other is are was were be been being am another do does did done doing has have had"
    " having dollar dollars usd will would shall should can could may might must let s t d ll"
    " m re ve ones",
    # Ways of asking, and of asking for an answer.
    "please kindly tell know ask asked question questions problem problems query exercise task"
    " answer answers answered solution solve solved find finds found out calculate calculates"
    " compute computes determine determines name identify give given gives"
    " provide list explain describe say help need want wish like wonder wondering think consider"
    " suppose assume following select choose pick option options choice choices correct correctly"
    " true best most likely probable probably appropriate suitable exactly actually really"
    " many much number numbers quantity amount amounts count total totals totally altogether"
    " overall combined together sum both all step steps final result hi hello hey dear thank"
    " thanks advance",
    # German, French, Spanish, Italian, Portuguese; without words that say something in English.
    "der das dem des ein eine einen einem einer eines und oder ist sind wird werden wurde"
    " haben von zu zum zur im mit für auf wie viele viel was welche welcher welches wer wo wann"
    " warum bitte",
    "le la les un une des du et ou est sont à au aux dans en avec que qui quoi quel"
    " quelle quels quelles combien comment pourquoi ce cette ces il elle ils elles ne plaît",
    "el los las una unos unas es del al con por para qué cuál cuáles cuánto cuántos cuánta"
    " cuántas cómo cuándo dónde su sus se",
    "gli uno è sono di da quanto quanti quante quale quali che",
    "os um uma são das na nos nas quantos quantas qual quais",
    # Chinese and Japanese are read character by character.
    "的 了 是 什 么 麼 请 請 问 問 吗 嗎 呢 在 有 和 与 與 个 個 哪 些 一 之 也 都 就 为 為 这 這"
    " 那",
    "は が を に の で す と も か へ や ま 何",
)
"""Words without which a question asks the same."""

_GENERIC = _words(
    "month week day hour time year item piece person thing sale unit value group case"
)

ONE = _words("a an one single")
TWO = _words("both couple pair")
"""Words that may stand for a number and often do not: `both months`, `the two months`."""

NEGATIONS = _words(
    "not no never none neither nor without except excepting excluding cannot least incorrect"
    " incorrectly false untrue wrong unlikely non isnt arent wasnt werent doesnt dont didnt cant"
    " couldnt wont wouldnt shouldnt hasnt havent hadnt",
    "nicht kein keine keinen keinem keiner keines nie niemals ohne außer falsch",
    "pas jamais aucun aucune sans sauf faux",
    "nunca ningún ninguno ninguna excepto salvo falso",
    "mai senza tranne nessun nessuno nessuna não nem sem nenhum nenhuma exceto",
    "нет не без кроме никогда",
    "不 没 沒 无 無 非 未 勿 除",
)

_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTED.split())}
NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}

_SAME = """
shop store
buy purchase acquire
begin start commence
large big huge
small little tiny
fast quick rapid
child kid
doctor physician
mother mom mum
father dad
automobile car
picture photo photograph
money cash
job occupation
remain left leftover
get receive obtain
make produce manufacture
need require
use utilize employ
show display reveal
build construct
finish complete end
cost price
each every per apiece
whole entire
half halve
double twice
triple thrice
fewer less
medication medicine drug
illness disease
therapy treatment
treat manage
travel cover
cause provoke
indicate suggest
happen occur
frequent common
sign symptom
woman female
man male
mg milligram milligramme
g gram gramme
kg kilogram kilogramme kilo
mcg microgram µg μg ug
ml milliliter millilitre
l liter litre
mm millimeter millimetre
cm centimeter centimetre
m meter metre
km kilometer kilometre
hour hr hrs h
minute min
second sec 2nd
week wk wks
year yr yrs yo
percent percentage pct
euro eur
pound lb lbs
ounce oz
inch
foot feet ft
celsius c
fahrenheit f
degree deg
first 1st
third 3rd
fourth 4th
fifth 5th
sixth 6th
seventh 7th
eighth 8th
ninth 9th
tenth 10th
old aged age
behavior behaviour
color colour
favor favour
center centre
program programme
gray grey
"""
"""Words that say the same, one class a line; its first word stands for all of them."""

_IRREGULAR = """
be is are was were been
buy bought
sell sold
make made
take took taken
give gave given
get got gotten
go goes went gone
use used using
shoe shoes
toe toes
canoe canoes
come came
run ran
eat ate eaten
drink drank drunk
drive drove driven
ride rode ridden
write wrote written
read
grow grew grown
know knew known
throw threw thrown
fly flew flown
draw drew drawn
break broke broken
choose chose chosen
speak spoke spoken
wear wore worn
tear tore torn
bear bore borne born
begin began begun
swim swam swum
sing sang sung
sit sat
win won
lose lost
leave
keep kept
sleep slept
spend spent
send sent
lend lent
build built
bend bent
pay paid
lay laid
say said
tell told
hold held
stand stood
understand understood
bring brought
think thought
catch caught
teach taught
feel felt
meet met
feed fed
find found
fight fought
seek sought
dig dug
hang hung
stick stuck
swing swung
bite bitten
hide hidden hid
shake shook shaken
freeze froze frozen
forget forgot forgotten
wake woke woken
light lit
slide slid
strike struck
sweep swept
swell swollen
bind bound
bleed bled
breed bred
spread
grind ground
shoot shot
steal stole stolen
rise rose risen
fall fell fallen
show shown
see saw seen
hear heard
lead led
have has had
do does did done
child children
man men
woman women
foot feet
tooth teeth
goose geese
mouse mice
knife knives
life lives
wife wives
loaf loaves
shelf shelves
half halves
leaf leaves
person persons people
diagnosis diagnoses
analysis analyses
hypothesis hypotheses
"""


def stem(word: str) -> str:
    """An English word without the endings of its plural and its tenses: `stops`, `stopped` and
    `stopping` are `stop`. Not a dictionary's form: `bake` and `baked` are `bak`."""
    if not word.isascii() or not word.isalpha():
        return word
    if len(word) > 3:
        word = _uninflected(word)
        word = word[:-2].replace("ae", "e").replace("oe", "e") + word[-2:]  # anaemia, oedema
    if len(word) > 2 and word[-1] == word[-2]:
        return word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _uninflected(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes", "zes", "oes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ied", "ed"):
        bare = word.removesuffix(ending)
        if bare != word and len(bare) > 2 and any(vowel in bare for vowel in "aeiouy"):
            return bare + "y" if ending == "ied" else bare
    return word


def _classes(table: str) -> dict[str, str]:
    return {word: line.split()[0] for line in reversed(table.splitlines()) for word in line.split()}


_LEMMAS = _classes(_IRREGULAR)
_CONCEPTS = {stem(_LEMMAS.get(word, word)): stem(first) for word, first in _classes(_SAME).items()}


def canonical(word: str) -> str:
    """The one spelling of a word, its inflections and its synonyms; the word is casefolded."""
    stemmed = stem(_LEMMAS.get(word, word))
    return _CONCEPTS.get(stemmed, stemmed)


GENERIC = frozenset(canonical(word) for word in _GENERIC)
"""Nouns that a rewording may leave out where numbers show that two questions are the same one:
`in both months` and `in total`."""

_UNITS = _words(
    "mg g kg mcg ml l dl mm cm m km mile mph inch foot yard ounce ton second minute hour day week"
    " month percent degree euro pound yen cent mmhg bpm mol mmol meq iu kcal cal joule watt volt hz"
    " kb mb gb"
)
UNITS = {canonical(unit): f" {canonical(unit)}" for unit in _UNITS} | {canonical("year"): ""}
"""Units, which belong to the number before them. Years are what a number is of when nothing is
said: `a 45-year-old` is `aged 45`."""
