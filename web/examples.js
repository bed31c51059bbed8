/** Reviews to try: some easy, some of the kinds that fool models which weigh words. */
export const EXAMPLES = [
  ["Rave", "A quiet, beautiful film. The two leads are superb, the score is haunting, and the last scene is simply perfect."],
  ["Pan", "Dull, badly lit and far too long. The jokes fall flat, the villain is laughable, and I wanted my evening back."],
  ["Negation", "I can't say I was bored, and it isn't the failure I had been warned about. Not bad at all, really."],
  ["Sarcasm", "Oh, wonderful. Another two hours of men shouting in corridors. Just what cinema was missing. Bravo."],
  ["Mixed", "The acting is excellent and the camera work is lovely, but the story makes no sense and the ending is a mess."],
  ["Empty", ""],
];
