"""The vocabulary of the story grammar: who may appear, where, and with what.

Each class of words is a list of records; a record is a dictionary whose entries the templates in plots.txt read as
`{class.entry}`. Entries may be templates themselves. `name` is what plain `{class}` gives.
"""

Record = dict[str, str]

GIRLS = ("Ada Amy Ann Anya Bella Clara Dot Elsie Emma Eva Fern Hazel Ivy Jill June Kate Kira Lena Lola Lucy Maya Mia Molly "
         "Nell Nina Nora Pia Poppy Rosa Rose Ruby Sara Suki Tess Tilly Wren Zoe").split()
BOYS = ("Arlo Ben Bram Carl Dan Eli Emil Finn Fred Gus Hans Hugo Jack Jim Kofi Leo Luca Max Milo Ned Nico Noah Omar "
        "Oscar Otto Paul Pip Ravi Rob Sam Teo Theo Tim Toby Tom Will").split()

# animal: (its home, what it holds things with)
ANIMALS = {
    "bear": ("a warm cave", "paws"),
    "fox": ("a cozy den", "paws"),
    "rabbit": ("a soft burrow", "paws"),
    "mouse": ("a tiny hole under an oak tree", "paws"),
    "duck": ("a nest of reeds", "wings"),
    "frog": ("a house under a wide leaf", "hands"),
    "cat": ("a basket by the fire", "paws"),
    "dog": ("a wooden dog house", "paws"),
    "hedgehog": ("a bed of dry leaves", "paws"),
    "squirrel": ("a hollow tree", "paws"),
    "pig": ("a neat little barn", "hooves"),
    "turtle": ("a quiet spot near the water", "feet"),
    "goat": ("a shed with a green door", "hooves"),
    "sparrow": ("a round nest", "wings"),
    "owl": ("a tall old tree", "wings"),
    "beaver": ("a house of sticks", "paws"),
    "mole": ("a long dark tunnel", "paws"),
    "lamb": ("a barn full of hay", "hooves"),
}
LOOKS = "little small young tiny".split()
TRAITS = "kind brave curious shy clever cheerful gentle quiet playful busy friendly funny".split()

# where: with its preposition; near: for houses close to it; spots: places to look for or hide things
PLACES = [
    dict(name="forest", at="in the forest", near="at the edge of the forest", to="into the forest",
         spots="under a fallen log|behind a big tree|in a pile of leaves|beside the stream|between two roots|under a bush"),
    dict(name="garden", at="in the garden", near="beside a big garden", to="into the garden",
         spots="under the bench|behind the gate|among the flowers|near the well|in the tall grass|under the rose bush"),
    dict(name="farm", at="on the farm", near="near the old farm", to="to the farm",
         spots="in the hay|behind the barn|under the cart|near the hen house|beside the fence|in an empty bucket"),
    dict(name="river", at="by the river", near="beside the river", to="to the river",
         spots="among the reeds|under the bridge|behind a gray rock|in the wet sand|near the old boat|under a willow tree"),
    dict(name="beach", at="on the beach", near="by the sea", to="to the beach",
         spots="under a wet rock|behind the dunes|in the warm sand|near the boats|under the pier|in a small pool"),
    dict(name="hill", at="on the hill", near="at the foot of a green hill", to="up the hill",
         spots="behind a stone wall|under a pine tree|in the tall grass|beside the path|near the windmill|in a small hole"),
    dict(name="village", at="in the village", near="in a small village", to="to the village",
         spots="behind the bakery|under a market cart|near the fountain|beside the school|on the steps|under the bridge"),
    dict(name="park", at="in the park", near="across from the park", to="to the park",
         spots="under the slide|behind the swings|near the pond|under a bench|in the bushes|beside the big oak tree"),
    dict(name="meadow", at="in the meadow", near="next to a wide meadow", to="to the meadow",
         spots="among the daisies|behind a gray rock|under a bush|beside the stream|in the tall grass|near the apple tree"),
    dict(name="lake", at="by the lake", near="close to a blue lake", to="to the lake",
         spots="under the dock|among the reeds|behind a log|in a small boat|beside a flat stone|near the ducks"),
]

# look: adjectives that suit it; play: what one does with it, past tense
TOYS = [
    dict(name="ball", look="red|blue|green|yellow|striped", play="bounced"),
    dict(name="kite", look="red|blue|yellow|orange|purple", play="flew"),
    dict(name="drum", look="red|little|round|shiny", play="played"),
    dict(name="doll", look="little|pretty|soft|old", play="hugged"),
    dict(name="boat", look="wooden|white|blue|tiny", play="sailed"),
    dict(name="train", look="wooden|green|red|shiny", play="pushed"),
    dict(name="wagon", look="red|wooden|green|little", play="pulled"),
    dict(name="teddy bear", look="brown|soft|old|fluffy", play="hugged"),
    dict(name="whistle", look="silver|wooden|shiny|blue", play="blew"),
    dict(name="bell", look="golden|silver|shiny|little", play="rang"),
    dict(name="book", look="big|blue|old|thick", play="read"),
    dict(name="lantern", look="paper|golden|green|old", play="lit"),
    dict(name="flute", look="wooden|silver|little|old", play="played"),
]
CLOTHES = [
    dict(name="hat", look="red|blue|tall|straw|green"),
    dict(name="scarf", look="long|warm|yellow|striped|red"),
    dict(name="coat", look="blue|warm|green|new"),
    dict(name="cap", look="red|green|little|new"),
    dict(name="ribbon", look="pink|yellow|blue|silk"),
    dict(name="sweater", look="warm|orange|soft|striped"),
    dict(name="blanket", look="soft|blue|warm|wool"),
]
TREASURES = [
    dict(name="shell", look="pink|white|shiny|smooth"),
    dict(name="stone", look="round|blue|smooth|sparkling"),
    dict(name="coin", look="golden|silver|shiny|old"),
    dict(name="key", look="golden|silver|tiny|old"),
    dict(name="feather", look="white|blue|long|soft"),
    dict(name="ring", look="golden|silver|pretty|shiny"),
    dict(name="button", look="red|shiny|blue|round"),
    dict(name="acorn", look="golden|brown|round|smooth"),
    dict(name="marble", look="green|blue|shiny|purple"),
]
FOODS = [
    dict(name="apple pie", look="warm|big|sweet"),
    dict(name="cake", look="big|sweet|round|lemon"),
    dict(name="bun", look="warm|soft|sweet|fresh"),
    dict(name="pear", look="ripe|sweet|yellow|juicy"),
    dict(name="apple", look="red|juicy|sweet|green"),
    dict(name="cookie", look="big|warm|round|crunchy"),
    dict(name="plum", look="ripe|sweet|purple|juicy"),
    dict(name="pancake", look="hot|big|round|fluffy"),
    dict(name="sandwich", look="big|fresh|cheese|tasty"),
    dict(name="muffin", look="warm|big|soft|blueberry"),
    dict(name="peach", look="ripe|sweet|juicy|soft"),
    dict(name="loaf of bread", look="fresh|warm|brown|round"),
]

# A skill: how one tries, how it fails, and how it looks when it works (a full clause).
SKILLS = [
    dict(name="swim", tried="jumped into the pond and kicked", failed="water got into {A.his} nose",
         won="{A} swam all the way across the pond"),
    dict(name="whistle", tried="took a deep breath and blew", failed="no sound came out",
         won="a clear, sweet whistle filled the air"),
    dict(name="ride a bike", tried="climbed on the bike and pushed off", failed="the bike fell over",
         won="{A} rode all the way down the road"),
    dict(name="climb the tall tree", tried="grabbed a branch and pulled", failed="{A.he} slid back down",
         won="{A} sat on the highest branch and waved"),
    dict(name="bake bread", tried="mixed the flour and the water", failed="the bread was as hard as a rock",
         won="the bread came out soft and golden"),
    dict(name="paint", tried="picked up the brush and painted a tree", failed="the tree looked like a muddy spot",
         won="{A} painted a green tree with bright red apples"),
    dict(name="skate", tried="stepped on the ice", failed="{A.he} fell with a bump",
         won="{A} skated around and around like the wind"),
    dict(name="dance", tried="turned around and around", failed="{A.he} tripped and fell",
         won="{A} danced, and everyone clapped"),
    dict(name="jump over the stream", tried="ran fast and jumped", failed="{A.he} landed in the cold water with a splash",
         won="{A} flew over the stream and landed on the soft grass"),
    dict(name="row a boat", tried="pulled the oars", failed="the boat only went in circles",
         won="{A} rowed the boat to the other side of the lake"),
    dict(name="sing", tried="opened {A.his} mouth and sang", failed="the song came out like a squeak",
         won="{A} sang a lovely song, and even the birds came to listen"),
    dict(name="read", tried="opened a book and looked at the words", failed="the letters did not make sense",
         won="{A} read a whole page out loud"),
    dict(name="fly a kite", tried="ran across the grass with the kite", failed="the kite fell to the ground",
         won="the kite went up, up, up into the blue sky"),
    dict(name="build a tower", tried="put one block on top of another", failed="the tower fell down with a crash",
         won="the tower stood tall and did not fall"),
]

# A fear: when it comes, what a friend does about it, and how it ends (full sentences).
FEARS = [
    dict(name="the dark", comes="When the sun went down, {A} hid under the blanket.",
         help="{B} lit a small lamp and showed {A.him} that the shadows were only chairs and coats.",
         won="{A} looked up and saw the stars. They were beautiful."),
    dict(name="thunder", comes="One night, the sky went boom, and {A} began to shake.",
         help="{B} sat close to {A.him}, and they counted after each flash of light.",
         won="The next time the thunder came, {A} only laughed and counted to five."),
    dict(name="deep water", comes="All the others jumped into the lake, but {A} stayed on the dock.",
         help="{B} stood in the water and held out a hand.",
         won="{A} took one small step, and then another. Soon {A.he} was splashing and laughing."),
    dict(name="the old bridge", comes="The bridge was high, and it shook in the wind. {A} did not want to cross it.",
         help="{B} walked in front and told {A.him} to look only at the other side.",
         won="Step by step, {A} crossed the whole bridge."),
    dict(name="the big dog", comes="Every day, the big dog barked at the gate, and {A} ran away.",
         help="{B} showed {A.him} how to stand still and speak in a soft voice.",
         won="The dog stopped barking and wagged its tail. It only wanted to play!"),
    dict(name="high places", comes="The others climbed the hill, but {A} stopped halfway and closed {A.his} eyes.",
         help="{B} came back down and walked beside {A.him} all the way.",
         won="At the top, {A} opened {A.his} eyes. {A.He} could see the whole world."),
    dict(name="the wind", comes="One night, the wind howled around the house, and {A} could not sleep.",
         help="{B} said that the wind was only singing, and hummed along with it.",
         won="{A} began to hum too. Soon the wind sounded like a friend."),
]

# A small one in trouble: where it is stuck, the sound it makes, and how it is freed (past tense, after a name).
RESCUES = [
    dict(name="kitten", stuck="high up in a tree", sound="meow",
         free="held a long branch to the tree, and the kitten climbed down"),
    dict(name="puppy", stuck="in the deep mud", sound="whine", free="put a board on the mud and pulled the puppy out"),
    dict(name="baby bird", stuck="on the cold ground", sound="cheep",
         free="lifted the baby bird gently and put it back in its nest"),
    dict(name="duckling", stuck="between two rocks", sound="quack", free="rolled one rock away, and the duckling swam free"),
    dict(name="butterfly", stuck="in a spider web", sound="flutter",
         free="broke the web with a thin stick, and the butterfly flew up"),
    dict(name="snail", stuck="on a leaf in the stream", sound="sigh", free="pulled the leaf to the shore with a long stick"),
    dict(name="bee", stuck="in a puddle", sound="buzz", free="held out a leaf, and the bee climbed onto it"),
    dict(name="chick", stuck="in a deep hole", sound="peep", free="let down a basket on a rope, and the chick hopped in"),
    dict(name="calf", stuck="behind a broken fence", sound="moo", free="moved the broken boards, and the calf walked out"),
    dict(name="fish", stuck="in a small dry pool", sound="splash", free="carried the fish to the river in a bucket"),
    dict(name="ladybug", stuck="under a glass jar", sound="tap", free="tipped the jar over, and the ladybug crawled out"),
]


def _named(records: list[Record], names: str) -> list[Record]:
    """Those of the records whose names are listed."""
    return [r for r in records if r["name"] in names.split("|")]


CLASSES: dict[str, list[Record]] = {
    "place": PLACES, "toy": TOYS, "treasure": TREASURES, "food": FOODS,
    "skill": SKILLS, "fear": FEARS, "rescue": RESCUES,
    "light": _named(TOYS, "ball|kite|doll|teddy bear|book|whistle"),  # what the wind or a crow could carry away
    "solid": _named(TOYS, "drum|doll|boat|train|wagon|lantern|flute|whistle"),  # what breaks and can be mended
    "worn": _named(CLOTHES, "hat|scarf|coat|cap|ribbon|sweater"),
    "warm": _named(CLOTHES, "scarf|coat|sweater|blanket"),
    "baked": _named(FOODS, "apple pie|cake|bun|cookie|pancake|muffin|loaf of bread"),
}
