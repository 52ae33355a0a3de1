/** Stands where Monaco's API names its two merge views, which the playground never opens. */
export class DiffEditorWidget {}
export class MultiDiffEditorWidget {}
