"""The usual names of the columns of images, captions, classes and splits, in order of priority.

They are compared by `columns.plain`: without case, and `file name`, `file-name` and `file_name` are one.
"""

FILES = (
    "file_name",
    "filename",
    "file",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_name",
    "imagename",
    "image_file",
    "image_file_name",
    "image_filename",
    "img",
    "img_path",
    "img_name",
    "picture",
    "photo",
    "image_id",
    *(
        "文件名",
        "文件",
        "文件路径",
        "路径",
        "图片",
        "图像",
        "图片名",
        "图片名称",
        "图片文件",
        "图片路径",
        "图像路径",
        "照片",
    ),
    *("檔名", "檔案名稱", "檔案", "路徑", "圖片", "圖像", "圖片名稱", "圖片路徑"),
)
IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")  # of images inside of a table
URLS = (
    "url",
    "urls",
    "image_url",
    "img_url",
    "photo_url",
    "image_link",
    "图片链接",
    "链接",
)  # of images that are elsewhere
TO_DOWNLOAD = "t2i-prepare downloads nothing: img2dataset does, and t2i-prepare webdataset reads its shards"
CAPTIONS = (
    "text",
    "caption",
    "captions",
    "texts",
    "prompt",
    "prompts",
    "description",
    "descriptions",
    "sentence",
    "sentences",
    "comment",
    "raw",
    "alt_text",
    "image_caption",
    "txt",
    *("描述", "图片描述", "图像描述", "文本", "文字", "说明", "提示词", "句子"),
    *("圖片描述", "圖像描述", "說明", "提示詞"),
)
CLASSES = ("class", "class_name", "label", "category", "类别", "类名", "分类", "种类", "類別", "分類", "種類")
# Columns that may be of something else than splits: their values count where they are nothing but a split's name.
OF_ANYTHING = (
    "set",
    "subset",
    "phase",
    "set_name",
    "evaluation_status",
    "eval_status",
    "usage",
    "fold",
    "stage",
    "mode",
)
_SPLITS = ("split", "data_split", "dataset_split", *OF_ANYTHING[:2], "partition", *OF_ANYTHING[2:])
SPLITS = (*_SPLITS, "划分", "数据划分", "数据集划分", "劃分", "資料劃分")
# Columns of true and false, and whether true is held out.
FLAGS = {"is_train": False, "is_training": False, "is_test": True, "is_val": True, "is_validation": True}
